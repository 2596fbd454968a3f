// Package testserver starts real servers for the tests of a backend: on free
// ports of 127.0.0.1, with their data in a temporary directory, stopped at the
// end whatever happens. The programs are installed by script/servers.
//
// A test package runs its tests through Main:
//
//	func TestMain(m *testing.M) { testserver.Main(m) }
//
//	func TestConformance(t *testing.T) {
//		server := testserver.EtcdV3(t) // one for the whole package
//		…
//	}
//
// Each kind of server has a file of its own with two kinds of functions. The
// one named after the server returns the one that all tests of the package
// share, started at first use; it is never killed. Those named Start… start one
// that belongs to the test, which may do with it what it likes: Kill, Restart,
// Stop, Resume.
//
// Where a program is not installed, the test is skipped with the reason; also
// with go test -short, which starts no servers. The environment changes that:
//
//   - VALKEYRIE_TEST_REQUIRE, a list of backends separated by commas, or "all":
//     what would be skipped for them is a failure.
//   - VALKEYRIE_TEST_<BACKEND>, a list of host:port: the shared server is that
//     one, and none is started.
//   - VALKEYRIE_SERVERS: the directory that script/servers installed to.
package testserver
