package dynamodb

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go/logging"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store"
)

// idleConnections is how many connections are kept for later calls: enough that
// callers side by side do not open and close them all the time, as they do with
// the SDK's own limit of 10.
const idleConnections = 512

func bad(field, reason string, err error) error {
	return &valkeyrie.InvalidConfigError{Backend: StoreName, Field: field, Reason: reason, Err: err}
}

// tableName is what DynamoDB takes as the name of a table.
var tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

func (o Options) check() error {
	switch {
	case !tableName.MatchString(o.Table) && !strings.HasPrefix(o.Table, "arn:"):
		return bad("Options.Table", `"`+o.Table+`" is no name of a table: give 3 to 255 of the characters a-z, A-Z, 0-9, "_", "-" and ".", or an ARN`, nil)
	}
	return nil
}

// endpointURL returns the URL of the endpoint, nil for the region's own.
func endpointURL(endpoints []string, tls bool) (*url.URL, error) {
	switch len(endpoints) {
	case 0:
		return nil, nil
	case 1:
		urls, err := store.URLs(StoreName, endpoints, store.HTTP{Port: localPort, TLS: tls, Path: true})
		if err != nil {
			return nil, err
		}
		return urls[0], nil
	}
	return nil, bad("endpoints", "are "+strings.Join(endpoints, ", ")+"; a table has one endpoint, and usually none needs to be given", nil)
}

// localPort is that of DynamoDB Local.
const localPort = 8000

// onThisMachine tells whether an endpoint is one of an emulator here.
func onThisMachine(endpoint *url.URL) bool {
	return endpoint != nil && (endpoint.Hostname() == "localhost" || net.ParseIP(endpoint.Hostname()).IsLoopback())
}

// awsConfig returns the configuration of the clients, and their transport if it
// is not the user's own.
func awsConfig(endpoint *url.URL, settings valkeyrie.Config, given *aws.Config) (aws.Config, *http.Transport, error) {
	var cfg aws.Config
	var err error
	if given != nil {
		cfg = given.Copy()
	} else if cfg, err = config.LoadDefaultConfig(context.Background()); err != nil {
		return cfg, nil, bad("Config.Backend", "the AWS configuration of this environment cannot be read", err)
	}
	if endpoint != nil {
		cfg.BaseEndpoint = aws.String(endpoint.String())
		cfg.Region = cmp.Or(cfg.Region, "us-east-1") // an emulator does not care; signing needs one
	}
	if cfg.Region == "" {
		return cfg, nil, bad("Options.AWS", "there is no region: set AWS_REGION or the region in Options.AWS", nil)
	}
	if settings.Username != "" {
		cfg.Credentials = aws.NewCredentialsCache(
			credentials.NewStaticCredentialsProvider(settings.Username, settings.Password, settings.Token))
	}
	if given == nil || cfg.Logger == nil { // the SDK would write to standard error
		cfg.Logger = logging.LoggerFunc(func(class logging.Classification, format string, v ...any) {
			settings.Logger.Debug("AWS SDK: "+fmt.Sprintf(format, v...), "backend", StoreName, "class", class)
		})
	}
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} } // see request
	return withTransport(cfg, settings)
}

// withTransport replaces the SDK's own HTTP client, also one that the user has
// adjusted, by one that keeps more connections and is bounded in time.
func withTransport(cfg aws.Config, settings valkeyrie.Config) (aws.Config, *http.Transport, error) {
	client, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	switch {
	case cfg.HTTPClient == nil:
		client = awshttp.NewBuildableClient()
	case !ok && settings.TLS != nil:
		return cfg, nil, bad("Config.TLS", "is set, and so is the HTTPClient of Options.AWS: set the one there", nil)
	case !ok:
		return cfg, nil, nil
	}
	transport := client.WithDialerOptions(func(dialer *net.Dialer) {
		dialer.Timeout = settings.ConnectionTimeout
	}).GetTransport()
	transport.MaxIdleConns = 0
	transport.MaxIdleConnsPerHost = idleConnections
	transport.TLSHandshakeTimeout = settings.ConnectionTimeout
	transport.ResponseHeaderTimeout = settings.ConnectionTimeout
	if settings.TLS != nil {
		transport.TLSClientConfig = settings.TLS.Clone()
	}
	cfg.HTTPClient = &http.Client{
		Transport: transport,
		// A signature is for one host: to follow a redirect would be in vain.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return cfg, transport, nil
}
