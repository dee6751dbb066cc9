import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "@sendense/client/google/rpc/error_details";

/** What the hub says of an error: a stable reason, a sentence, the fields at fault. */
export interface Failure {
  reason: string;
  message: string;
  violations: { field: string; problem: string }[];
}

/**
 * Take the error of a call apart. Errors that the hub did not send (it is away,
 * the deadline passed) have gRPC's code as their reason.
 */
export function failureOf(thrown: unknown): Failure {
  const error = ConnectError.from(thrown);
  const [info] = error.findDetails(ErrorInfoSchema);
  const [badRequest] = error.findDetails(BadRequestSchema);
  return {
    reason: info?.reason ?? Code[error.code],
    message: error.rawMessage,
    violations: (badRequest?.fieldViolations ?? []).map(({ field, description }) => ({
      field,
      problem: description,
    })),
  };
}

/** The failure in one line for people. */
export function describe({ reason, message, violations }: Failure): string {
  return [`${reason}: ${message}`, ...violations.map((one) => `${one.field}: ${one.problem}`)].join("; ");
}
