package testserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certs are the certificates of one TLS server and its clients, made for the
// test by an authority of their own, as files for the server.
type Certs struct {
	CA         string // the authority's certificate
	ServerCert string // for 127.0.0.1, ::1 and localhost
	ServerKey  string
	ClientCert string // with the common name "root"
	ClientKey  string

	pool   *x509.CertPool
	client tls.Certificate
}

// ClientConfig returns the settings of a client that trusts the server and
// shows no certificate.
func (c *Certs) ClientConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.pool}
}

// MutualConfig returns the settings of a client that trusts the server and shows
// its certificate.
func (c *Certs) MutualConfig() *tls.Config {
	cfg := c.ClientConfig()
	cfg.Certificates = []tls.Certificate{c.client}
	return cfg
}

// NewCerts makes certificates and writes them to the directory. They are valid
// for a day.
func NewCerts(dir string) (*Certs, error) {
	ca, err := issue(dir, "ca", nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "valkeyrie test authority"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	})
	if err != nil {
		return nil, err
	}
	server, err := issue(dir, "server", ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "localhost"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		// A server shows it to itself and to its peers as a client, too.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	client, err := issue(dir, "client", ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "root"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(client.certFile, client.keyFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return &Certs{
		CA:         ca.certFile,
		ServerCert: server.certFile, ServerKey: server.keyFile,
		ClientCert: client.certFile, ClientKey: client.keyFile,
		pool: pool, client: pair,
	}, nil
}

// certs makes certificates for servers with TLS; nil for those without.
func (s *session) certs(tls bool) (*Certs, error) {
	if !tls {
		return nil, nil
	}
	dir, err := s.mkdir("certs")
	if err != nil {
		return nil, err
	}
	return NewCerts(dir)
}

// issued is a certificate with its key.
type issued struct {
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certFile, keyFile string
}

// issue completes the template, has it signed by the authority (by itself if by
// is nil) and writes certificate and key.
func issue(dir, name string, by *issued, template *x509.Certificate) (*issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // clocks differ
	template.NotAfter = time.Now().Add(24 * time.Hour)
	if by == nil {
		by = &issued{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	out := &issued{
		key:      key,
		certFile: filepath.Join(dir, name+".crt"),
		keyFile:  filepath.Join(dir, name+".key"),
	}
	if out.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	// PKCS #8 is what servers written in Java and C read as well.
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(out.certFile, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return out, writePEM(out.keyFile, "PRIVATE KEY", pkcs8)
}

// writePEM writes one PEM block.
func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
