/**
 * Starts a backup of one VM, follows it to its end and lists its disks.
 *
 *   node dist/backup.js [--hub HOST:PORT] [--repository NAME] VM
 *
 * Progress goes to standard output, a line per change; the last line is the job
 * as JSON. The exit code is 0 when the backup completed, 1 when it did not or
 * the hub refused, and 2 for wrong usage.
 */
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";

import { createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BackupService, BackupStatus, type Backup, type BackupDisk } from "@sendense/client/sendense/v1/backup";
import { DiskService } from "@sendense/client/sendense/v1/context";

import { describe, failureOf, type Failure } from "./errors.js";
import { watch } from "./watch.js";

interface Result {
  job_id: string;
  status: string;
  error?: Omit<Failure, "violations">;
  disks: {
    disk_index: number;
    label: string;
    capacity_bytes: number;
    bytes_stored: number;
    disk_change_id: string;
  }[];
}

async function run(transport: Transport, vm: string, repository: string): Promise<Result> {
  const backups = createClient(BackupService, transport);
  // The request id makes repeating the call harmless.
  const started = await backups.startBackup({ vm, repository, requestId: randomUUID() });
  const jobId = started.backup?.jobId ?? "";

  let told = "";
  let job: Backup | undefined;
  for await (job of watch(backups, jobId)) {
    const line = progress(job);
    if (line !== told) console.log(line);
    told = line;
  }
  const result: Result = {
    job_id: jobId,
    status: `BACKUP_STATUS_${BackupStatus[job?.status ?? BackupStatus.UNSPECIFIED]}`,
    disks: (await listDisks(transport, jobId)).map((disk) => ({
      disk_index: disk.diskIndex,
      label: disk.label,
      capacity_bytes: Number(disk.capacityBytes),
      bytes_stored: Number(disk.bytesStored),
      disk_change_id: disk.diskChangeId,
    })),
  };
  if (job?.status !== BackupStatus.COMPLETED) {
    result.error = { reason: job?.error?.reason ?? "", message: job?.error?.message ?? "" };
  }
  return result;
}

/** The job's disks, all pages of them. */
async function listDisks(transport: Transport, jobId: string): Promise<BackupDisk[]> {
  const service = createClient(DiskService, transport);
  const found: BackupDisk[] = [];
  let pageToken = "";
  do {
    const page = await service.listDisks({ jobId, pageToken });
    found.push(...page.disks);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return found;
}

function progress(job: Backup): string {
  const status = `BACKUP_STATUS_${BackupStatus[job.status]}`;
  return `${job.jobId} ${status}: ${job.bytesRead} of ${job.bytesPlanned} bytes read, ${job.bytesTransferred} sent`;
}

function usage(): never {
  console.error("usage: backup [--hub HOST:PORT] [--repository NAME] VM");
  process.exit(2);
}

function command(): { hub: string; repository: string; vm: string } {
  try {
    const { values, positionals } = parseArgs({
      options: {
        hub: { type: "string", default: "127.0.0.1:8443" },
        repository: { type: "string", default: "" },
      },
      allowPositionals: true,
    });
    const [vm, ...more] = positionals;
    return vm === undefined || more.length > 0 ? usage() : { ...values, vm };
  } catch (problem) {
    console.error(problem instanceof Error ? problem.message : problem);
    return usage();
  }
}

const { hub, repository, vm } = command();
const transport = createGrpcTransport({
  baseUrl: `http://${hub}`, // HTTP/2 in plain text
  defaultTimeoutMs: 30_000,
  pingIntervalMs: 30_000,
  pingTimeoutMs: 15_000,
});
try {
  const result = await run(transport, vm, repository);
  if (result.error !== undefined) {
    console.error(`error: ${result.error.reason}: ${result.error.message}`);
    process.exitCode = 1;
  }
  console.log(JSON.stringify(result));
} catch (thrown) {
  console.error(`error: ${describe(failureOf(thrown))}`);
  process.exitCode = 1;
}
