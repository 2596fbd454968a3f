package testserver

import (
	"context"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// dynamodb is the name of the backend, and of the program.
const dynamodb = "dynamodb"

// DynamoDB returns the host:port of the DynamoDB Local that the package shares. It
// keeps its data in memory.
func DynamoDB(t testing.TB) string {
	t.Helper()
	if addrs := external(dynamodb); len(addrs) > 0 {
		return addrs[0]
	}
	return shareGroup(t, dynamodb, dynamodb, dynamodb, func(s *session, path string) (*Server, error) {
		return s.newDynamoDB(path, false)
	}).Addr()
}

// StartDynamoDB starts a DynamoDB Local for this test alone, which keeps its data
// over a restart.
func StartDynamoDB(t testing.TB) *Server {
	t.Helper()
	return startGroup(t, dynamodb, dynamodb, func(s *session, path string) (*Server, error) {
		return s.newDynamoDB(path, true)
	})
}

// newDynamoDB prepares a server.
func (s *session) newDynamoDB(path string, durable bool) (*Server, error) {
	ports, err := reserve(1)
	if err != nil {
		return nil, err
	}
	dir, err := s.mkdir(dynamodb)
	if err != nil {
		release(ports)
		return nil, err
	}
	args := []string{"-port", strconv.Itoa(ports[0].Number()), "-sharedDb"}
	if durable {
		args = append(args, "-dbPath", dir)
	} else {
		args = append(args, "-inMemory")
	}
	addr := ports[0].Addr()
	return s.newServer(command{
		name: "DynamoDB " + addr, path: path, args: args, dir: dir, ports: ports,
		env:   []string{"HOME=" + filepath.Dir(dir)}, // where Java would keep settings
		check: func(ctx context.Context) error { return dynamoDBDo(ctx, addr, "ListTables", "{}") },
	}, addr), nil
}

// dynamoDBDo makes a request and wants it done. DynamoDB Local looks at no
// signature, only for whose it is.
func dynamoDBDo(ctx context.Context, addr, op, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0")
	return answersOK(req, nil)
}
