package main

import (
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// failure is what the hub says of an error: a stable reason, a sentence, and for a
// request that cannot be used the fields at fault.
type failure struct {
	Reason     string      `json:"reason"`
	Message    string      `json:"message"`
	Violations []violation `json:"-"`
}

type violation struct{ Field, Problem string }

// failureOf takes the error of a call apart. Errors that the hub did not send (it is
// away, the deadline passed) have gRPC's code as their reason.
func failureOf(err error) *failure {
	answer := status.Convert(err)
	read := &failure{Reason: answer.Code().String(), Message: answer.Message()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			read.Reason = detail.GetReason()
		case *errdetails.BadRequest:
			for _, one := range detail.GetFieldViolations() {
				read.Violations = append(read.Violations, violation{one.GetField(), one.GetDescription()})
			}
		}
	}
	return read
}

// String is the failure in one line for people.
func (f *failure) String() string {
	var line strings.Builder
	fmt.Fprintf(&line, "%s: %s", f.Reason, f.Message)
	for _, one := range f.Violations {
		fmt.Fprintf(&line, "; %s: %s", one.Field, one.Problem)
	}
	return line.String()
}
