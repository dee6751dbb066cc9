// Command backup starts a backup of one VM, follows it to its end and lists its disks.
//
//	backup [--hub HOST:PORT] [--repository NAME] VM
//
// Progress goes to standard output, a line per change; the last line is the job as
// JSON. The exit code is 0 when the backup completed, 1 when it did not or the hub
// refused, and 2 for wrong usage.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	pb "sendense.internal/client/gen/sendense/v1"
)

const callTimeout = 30 * time.Second

type disk struct {
	Index         int32  `json:"disk_index"`
	Label         string `json:"label"`
	CapacityBytes uint64 `json:"capacity_bytes"`
	BytesStored   uint64 `json:"bytes_stored"`
	ChangeID      string `json:"disk_change_id"`
}

type result struct {
	JobID  string   `json:"job_id"`
	Status string   `json:"status"`
	Error  *failure `json:"error,omitempty"`
	Disks  []disk   `json:"disks"`
}

func main() {
	hub := flag.String("hub", "127.0.0.1:8443", "address of the hub")
	repository := flag.String("repository", "", "name or id of the repository; the default one unless given")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: backup [--hub HOST:PORT] [--repository NAME] VM")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	done, err := run(ctx, *hub, flag.Arg(0), *repository)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(done)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %s\n", failureOf(err))
		os.Exit(1)
	}
	if done.Error != nil {
		fmt.Fprintf(os.Stderr, "error: %s\n", done.Error)
		os.Exit(1)
	}
}

func run(ctx context.Context, hub, vm, repository string) (*result, error) {
	connection, err := grpc.NewClient(
		hub,
		// The hub speaks plain text, and a proxy is meant for the internet.
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}),
	)
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	backups := pb.NewBackupServiceClient(connection)
	job, err := start(ctx, backups, vm, repository)
	if err != nil {
		return nil, err
	}
	job, err = watch(ctx, backups, job.GetJobId())
	if err != nil {
		return nil, err
	}
	disks, err := list(ctx, pb.NewDiskServiceClient(connection), job.GetJobId())
	if err != nil {
		return nil, err
	}
	done := &result{JobID: job.GetJobId(), Status: job.GetStatus().String(), Disks: disks}
	if job.GetStatus() != pb.BackupStatus_BACKUP_STATUS_COMPLETED {
		done.Error = &failure{Reason: job.GetError().GetReason(), Message: job.GetError().GetMessage()}
	}
	return done, nil
}

// start asks for the backup; the request id makes repeating the call harmless.
func start(ctx context.Context, backups pb.BackupServiceClient, vm, repository string) (*pb.Backup, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := backups.StartBackup(ctx, &pb.StartBackupRequest{
		Vm:         vm,
		Repository: repository,
		RequestId:  rand.Text(),
	})
	return answer.GetBackup(), err
}

// list returns the job's disks, all pages of them.
func list(ctx context.Context, disks pb.DiskServiceClient, jobID string) ([]disk, error) {
	found := []disk{}
	request := &pb.ListDisksRequest{JobId: jobID}
	for {
		page, err := listPage(ctx, disks, request)
		if err != nil {
			return nil, err
		}
		for _, one := range page.GetDisks() {
			found = append(found, disk{
				Index:         one.GetDiskIndex(),
				Label:         one.GetLabel(),
				CapacityBytes: one.GetCapacityBytes(),
				BytesStored:   one.GetBytesStored(),
				ChangeID:      one.GetDiskChangeId(),
			})
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return found, nil
		}
	}
}

func listPage(ctx context.Context, disks pb.DiskServiceClient, request *pb.ListDisksRequest) (*pb.ListDisksResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return disks.ListDisks(ctx, request)
}
