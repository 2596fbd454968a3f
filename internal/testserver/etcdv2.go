package testserver

import "testing"

// etcdv2 is the backend's name.
const etcdv2 = "etcdv2"

// EtcdV2 returns the single server with the v2 API that the package shares.
func EtcdV2(t testing.TB) *Etcd {
	t.Helper()
	if addrs := external(etcdv2); len(addrs) > 0 {
		return &Etcd{Endpoints: addrs}
	}
	return shareEtcd(t, etcdv2, "", EtcdOptions{})
}

// StartEtcdV2 starts a server or a cluster with the v2 API for this test alone.
func StartEtcdV2(t testing.TB, o EtcdOptions) *Etcd {
	t.Helper()
	return startEtcd(t, etcdv2, o)
}
