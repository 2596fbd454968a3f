package dynamodb

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/internal/testserver"
)

// tap is an HTTP client that sees all requests of a store, and may answer instead
// of the server.
type tap struct {
	http.Client

	mu       sync.Mutex
	requests []exchange
	answer   func(r exchange) *http.Response // nil: the server answers
}

// exchange is a request with its answer.
type exchange struct {
	op     string // for example "PutItem"
	body   []byte
	answer []byte
}

func (p *tap) Do(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	_, op, _ := strings.Cut(req.Header.Get("X-Amz-Target"), ".")
	r := exchange{op: op, body: body}
	p.mu.Lock()
	answer := p.answer
	p.mu.Unlock()
	var resp *http.Response
	if answer != nil {
		resp = answer(r)
	}
	if resp == nil {
		if resp, err = p.Client.Do(req); err != nil {
			return nil, err
		}
	}
	defer resp.Body.Close()
	if r.answer, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(r.answer))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, r)
	return resp, nil
}

// answering sets who answers instead of the server.
func (p *tap) answering(f func(r exchange) *http.Response) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// took returns the requests since the last call.
func (p *tap) took() []exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests
	p.requests = nil
	return requests
}

// ops returns the operations since the last call.
func (p *tap) ops() []string {
	ops := []string{}
	for _, r := range p.took() {
		ops = append(ops, r.op)
	}
	return ops
}

// respond makes an answer of the server's.
func respond(status int, body any) *http.Response {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(bytes.NewReader(b)), ContentLength: int64(len(b)),
	}
}

// refusal is an answer with an error code.
func refusal(status int, code string) *http.Response {
	return respond(status, map[string]string{"__type": "com.amazonaws.dynamodb.v20120810#" + code, "message": code})
}

// awsTest is a configuration for a server that looks at no credentials.
func awsTest(client aws.HTTPClient) *aws.Config {
	return &aws.Config{
		Region: "eu-west-1", HTTPClient: client,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	}
}

// tapped opens a store on the shared server, closed at the end of the test, that
// has checked its table already.
func tapped(t testing.TB, opts Options) (valkeyrie.Store, *tap) {
	t.Helper()
	addr := testserver.DynamoDB(t)
	p := new(tap)
	t.Cleanup(p.CloseIdleConnections)
	opts.AWS, opts.Create = awsTest(p), true
	s, err := New([]string{addr}, nil, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err = s.Exists(testserver.Within(t, time.Minute), "warm-up", nil)
	require.NoError(t, err)
	p.took()
	return s, p
}

// open opens a store on the shared server, closed at the end of the test.
func open(t testing.TB, cfg *valkeyrie.Config, opts *Options) valkeyrie.Store {
	t.Helper()
	s := mustNew(t, testserver.DynamoDB(t), cfg, opts)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	if opts == nil { // so that the table is there
		_, err := s.Exists(testserver.Within(t, time.Minute), "warm-up", nil)
		require.NoError(t, err)
	}
	return s
}

// raw is the SDK's own client, as it comes.
func raw(t testing.TB, addr string) *dynamodb.Client {
	t.Helper()
	client := new(http.Client)
	client.Transport = http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(client.CloseIdleConnections)
	cfg := awsTest(client)
	return dynamodb.NewFromConfig(*cfg, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String("http://" + addr) })
}

// rawItem writes an item as another tool or process would.
func rawItem(t testing.TB, table string, a attributes) {
	t.Helper()
	_, err := raw(t, testserver.DynamoDB(t)).PutItem(testserver.Within(t, time.Minute), &dynamodb.PutItemInput{TableName: &table, Item: a})
	require.NoError(t, err)
}
