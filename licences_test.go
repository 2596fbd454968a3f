package valkeyrie_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// licences are those that may be in a library under Apache-2.0, with words that
// only their texts have, without commas and line breaks.
var licences = []struct{ name, words, without string }{
	{"Apache-2.0", "Apache License Version 2.0", ""},
	{"BSD-2-Clause", "Redistribution and use in source and binary forms", "endorse or promote products"},
	{"BSD-3-Clause", "endorse or promote products derived from", ""},
	{"ISC", "Permission to use copy modify and/or distribute this software", ""},
	{"MIT", "Permission is hereby granted free of charge to any person obtaining a copy", ""},
	{"MPL-2.0", "Mozilla Public License version 2.0", ""},
}

// licenceOf returns what the licence files of a module say.
func licenceOf(t *testing.T, dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "LICEN[CS]E*"))
	require.NoError(t, err)
	var text string
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		text += strings.Join(strings.Fields(strings.ReplaceAll(string(content), ",", "")), " ")
	}
	var found []string
	for _, l := range licences {
		if strings.Contains(text, l.words) && (l.without == "" || !strings.Contains(text, l.without)) {
			found = append(found, l.name)
		}
	}
	return strings.Join(found, " AND ")
}

// listed is a package, as go list tells of it.
type listed struct {
	ImportPath string
	Module     *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// foreignModules returns those of all packages that this module's compile.
func foreignModules(t *testing.T) map[string]listed {
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Module", "./...").Output()
	require.NoError(t, err)
	modules := make(map[string]listed)
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p listed
		require.NoError(t, decoder.Decode(&p))
		if p.Module != nil && !p.Module.Main {
			modules[p.ImportPath] = p
		}
	}
	return modules
}

// TestDependenciesAreListed compares docs/dependencies.md with what is compiled.
func TestDependenciesAreListed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the tables are those of Linux; what is compiled differs a little between systems")
	}
	modules, users, sizes := foreignModules(t), make(map[string][]string), make(map[string]int)
	facts := make(map[string]string) // by module: version and licence
	for name, deps := range dependencies(t) {
		if path.Dir(name) != "store" && name != "testutils" {
			continue
		}
		seen := make(map[string]bool)
		for _, dep := range deps {
			m := modules[dep].Module
			if m == nil || seen[m.Path] {
				continue
			}
			seen[m.Path] = true
			users[m.Path] = append(users[m.Path], path.Base(name))
			if facts[m.Path] == "" {
				licence := licenceOf(t, m.Dir)
				require.NotEmpty(t, licence, "%s has no licence that this library may use, or none that this test knows", m.Path)
				facts[m.Path] = m.Version + " | " + licence
			}
		}
		sizes[name] = len(seen)
	}
	for _, p := range modules {
		assert.Contains(t, facts, p.Module.Path, "%s is compiled by something that is no backend: list who", p.ImportPath)
	}
	doc, err := os.ReadFile("docs/dependencies.md")
	require.NoError(t, err)
	want := make(map[string]bool)
	for m, fact := range facts {
		slices.Sort(users[m])
		want[fmt.Sprintf("| `%s` | %s | %s |", m, fact, strings.Join(users[m], ", "))] = true
	}
	for name, n := range sizes {
		want[fmt.Sprintf("| `%s` | %d |", name, n)] = true
	}
	got := make(map[string]bool)
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `") {
			got[strings.TrimSpace(line)] = true
		}
	}
	assert.Equal(t, strings.Join(slices.Sorted(maps.Keys(want)), "\n"), strings.Join(slices.Sorted(maps.Keys(got)), "\n"),
		"the tables of docs/dependencies.md must have these lines")
}
