package testutils_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/kvtools/valkeyrie"
	"github.com/kvtools/valkeyrie/store/memory"
	"github.com/kvtools/valkeyrie/testutils"
)

// A suite that cannot fail proves nothing. Each of these stores has one defect,
// of a kind that real backends had, and must fail the check of the suite that
// names the promise it breaks.

// defect is a store that breaks one promise.
type defect struct {
	name  string
	check string // the area and the name of the check that must notice
	wrap  func(s valkeyrie.Store) valkeyrie.Store
}

// defects lists all of them.
func defects() []defect {
	var all []defect
	all = append(all, kvDefects...)
	all = append(all, watchDefects...)
	return append(all, lockDefects...)
}

// sound is the value of the variable for a store without a defect.
const (
	variable = "VALKEYRIE_TESTUTILS_DEFECT"
	sound    = "none"
)

// TestSuite is the suite in a child process, against a broken store.
func TestSuite(t *testing.T) {
	name := os.Getenv(variable)
	if name == "" {
		t.Skip("runs in a child process of TestBroken; the memory store's own tests run the suite against a sound one")
	}
	wrap := func(s valkeyrie.Store) valkeyrie.Store { return s }
	for _, d := range defects() {
		if d.name == name {
			wrap = d.wrap
			testutils.HurryUp()
		}
	}
	testutils.Run(t, testutils.Harness{
		Backend: memory.StoreName,
		New: func(t testing.TB, cfg *valkeyrie.Config) valkeyrie.Store {
			s, err := memory.New([]string{"shared"}, cfg, nil)
			require.NoError(t, err)
			return wrap(s)
		},
	})
}

// TestBroken runs each broken store through the check that must notice, and a
// sound one through all of these.
func TestBroken(t *testing.T) {
	t.Run("a sound store passes", func(t *testing.T) {
		t.Parallel()
		var areas, checks []string
		for _, d := range defects() {
			area, check, _ := strings.Cut(d.check, "/")
			areas, checks = append(areas, area), append(checks, regexp.QuoteMeta(subtest(check)))
		}
		out, err := runSuite(t, sound, "("+strings.Join(areas, "|")+")", "("+strings.Join(checks, "|")+")")
		require.NoError(t, err, out)
		for _, d := range defects() {
			require.Contains(t, out, "--- PASS: TestSuite/contract/"+subtest(d.check)+" (", "the check was not run")
		}
	})
	for _, d := range defects() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			area, check, _ := strings.Cut(d.check, "/")
			out, err := runSuite(t, d.name, area, regexp.QuoteMeta(subtest(check)))
			require.Error(t, err, "the suite did not notice:\n%s", out)
			require.IsType(t, &exec.ExitError{}, err)
			require.Contains(t, out, "--- FAIL: TestSuite/contract/"+subtest(d.check)+" (", "something else failed:\n%s", out)
			require.NotContains(t, out, "panic:", out)
		})
	}
}

// runSuite runs some checks of the suite in a child process.
func runSuite(t *testing.T, name, area, check string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.parallel=16", "-test.timeout=90s",
		"-test.run=^TestSuite$/^contract$/^"+area+"$/^"+check+"$")
	cmd.Env = append(os.Environ(), variable+"="+name)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// subtest writes a name as the testing package does.
func subtest(name string) string { return strings.ReplaceAll(name, " ", "_") }
