import { setTimeout as delay } from "node:timers/promises";

import { Code, ConnectError, type Client } from "@connectrpc/connect";
import { BackupStatus, type Backup, type BackupService } from "@sendense/client/sendense/v1/backup";

/** A stream is given up and opened anew after this time, so that none can hang for ever. */
const STREAM_TIMEOUT_MS = 600_000;
/** How often and how far apart a hub that is away (a restart, a network fault) is asked again. */
const ATTEMPTS = 15;
const ATTEMPT_EVERY_MS = 2_000;

/** Yield the job's states until the last one. Outlives a restart of the hub. */
export async function* watch(backups: Client<typeof BackupService>, jobId: string): AsyncGenerator<Backup> {
  let failures = 0;
  while (true) {
    let states = 0;
    try {
      for await (const { backup } of backups.watchBackup({ jobId }, { timeoutMs: STREAM_TIMEOUT_MS })) {
        if (backup === undefined) continue;
        states += 1;
        yield backup;
        if (ended(backup)) return;
      }
      throw new ConnectError("the hub ended the watch before the job ended", Code.Unavailable);
    } catch (thrown) {
      const { code } = ConnectError.from(thrown);
      if (code === Code.DeadlineExceeded && states > 0) continue; // its time was up: nothing broke
      // One that told news before it broke does not count.
      failures = states > 1 ? 1 : failures + 1;
      if (code !== Code.Unavailable || failures > ATTEMPTS) throw thrown;
    }
    await delay(ATTEMPT_EVERY_MS);
  }
}

export function ended(job: Backup): boolean {
  return [BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.CANCELLED].includes(job.status);
}
