package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "sendense.internal/client/gen/sendense/v1"
)

const (
	// A stream is given up and opened anew after this time, so that none can hang for ever.
	streamTimeout = 10 * time.Minute
	// How long the hub may be away: a restart, a network fault.
	awayTimeout = 30 * time.Second
	// Streams in a row that break after a single state: the hub cannot keep a watch.
	brokenStreamsLimit = 10
)

// watch prints the job's states and returns the last one. It outlives a restart of the hub.
func watch(ctx context.Context, backups pb.BackupServiceClient, jobID string) (*pb.Backup, error) {
	told := ""
	tell := func(job *pb.Backup) {
		if line := progress(job); line != told {
			fmt.Println(line)
			told = line
		}
	}
	broken := 0
	for {
		timeout := streamTimeout
		if broken > 0 {
			timeout = awayTimeout
		}
		job, states, err := watchStream(ctx, backups, jobID, timeout, tell)
		code := status.Code(err)
		switch {
		case err == nil:
			return job, nil
		case states == 0 || ctx.Err() != nil:
			return nil, err
		case code == codes.DeadlineExceeded: // its time was up: nothing broke
			broken = 0
		case code == codes.Unavailable && states > 1:
			broken = 1
		case code == codes.Unavailable && broken < brokenStreamsLimit:
			broken++
		default:
			return nil, err
		}
	}
}

// watchStream follows one stream to the job's last state; it also counts the states it saw.
func watchStream(
	ctx context.Context,
	backups pb.BackupServiceClient,
	jobID string,
	timeout time.Duration,
	tell func(*pb.Backup),
) (*pb.Backup, int, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// While the hub is away, a stream waits for it instead of failing at once.
	stream, err := backups.WatchBackup(ctx, &pb.WatchBackupRequest{JobId: jobID}, grpc.WaitForReady(true))
	if err != nil {
		return nil, 0, err
	}
	for states := 0; ; states++ {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, states, status.Error(codes.Unavailable, "the hub ended the watch before the job ended")
		}
		if err != nil {
			return nil, states, err
		}
		job := answer.GetBackup()
		tell(job)
		if ended(job) {
			return job, states + 1, nil
		}
	}
}

func ended(job *pb.Backup) bool {
	switch job.GetStatus() {
	case pb.BackupStatus_BACKUP_STATUS_COMPLETED,
		pb.BackupStatus_BACKUP_STATUS_FAILED,
		pb.BackupStatus_BACKUP_STATUS_CANCELLED:
		return true
	default:
		return false
	}
}

func progress(job *pb.Backup) string {
	return fmt.Sprintf(
		"%s %s: %d of %d bytes read, %d sent",
		job.GetJobId(), job.GetStatus(), job.GetBytesRead(), job.GetBytesPlanned(), job.GetBytesTransferred(),
	)
}
