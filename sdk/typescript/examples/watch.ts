import { setTimeout as delay } from "node:timers/promises";

import { Code, ConnectError, type Client } from "@connectrpc/connect";
import { BackupStatus, type Backup, type BackupService } from "@sendense/client/sendense/v1/backup";

/** A stream is given up and opened anew after this time, so that none can hang for ever. */
const STREAM_TIMEOUT_MS = 600_000;
/** How often and how far apart a hub that is away (a restart, a network fault) is asked again. */
const ATTEMPTS = 15;
const ATTEMPT_EVERY_MS = 2_000;

/** A connection that broke: refused, reset, or closed under the stream. */
const BROKEN = [Code.Unavailable, Code.Aborted, Code.Canceled];

/** Yield the job's states until the last one. Outlives a restart of the hub. */
export async function* watch(backups: Client<typeof BackupService>, jobId: string): AsyncGenerator<Backup> {
  let failures = 0;
  let last = false;
  while (true) {
    let states = 0;
    const stop = new AbortController(); // ends the stream when the caller does not read on
    const options = { timeoutMs: STREAM_TIMEOUT_MS, signal: stop.signal };
    try {
      // Read to its end, which follows the last state: a stream left before keeps its timer.
      for await (const { backup } of backups.watchBackup({ jobId }, options)) {
        if (backup === undefined) continue;
        states += 1;
        last = ended(backup);
        yield backup;
      }
      if (last) return;
      throw new ConnectError("the hub ended the watch before the job ended", Code.Unavailable);
    } catch (thrown) {
      if (last) return;
      const { code } = ConnectError.from(thrown);
      if (code === Code.DeadlineExceeded && states > 0) continue; // its time was up: nothing broke
      // A stream that told news before it broke starts the count anew.
      failures = states > 1 ? 1 : failures + 1;
      if (!BROKEN.includes(code) || failures > ATTEMPTS) throw thrown;
    } finally {
      stop.abort();
    }
    await delay(ATTEMPT_EVERY_MS);
  }
}

export function ended(job: Backup): boolean {
  return [BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.CANCELLED].includes(job.status);
}
