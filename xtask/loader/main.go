// Loader fills an etcd with objects of the sizes and kinds a Kubernetes cluster has, for the benchmarks.
// Usage: loader ENDPOINT SEED LIVE_KEYS REVISIONS VALUE_BYTES [RESOURCE]
// With RESOURCE all objects are of that one. With LOADER_PER_SECOND it writes at that rate and prints the median and the 99th
// percentile of the time a write took, in microseconds. For https ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY name files.
package main

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Share of each resource among the live keys, in percent; what is left are pods.
var resources = []struct {
	path, kind, apiVersion string
	percent                int
}{
	{"secrets", "Secret", "v1", 15},
	{"configmaps", "ConfigMap", "v1", 15},
	{"events", "Event", "v1", 20},
	{"replicasets", "ReplicaSet", "apps/v1", 10},
	{"leases", "Lease", "coordination.k8s.io/v1", 2},
	{"endpointslices", "EndpointSlice", "discovery.k8s.io/v1", 8},
	{"pods", "Pod", "v1", 30},
}

const words = "container image volume mount probe label selector annotation replica condition ready status network policy "

func object(key int, revision int, seed int64, size int) (string, string) {
	random := rand.New(rand.NewSource(seed ^ int64(key)<<32 ^ int64(revision)))
	pick, chosen := key%100, resources[len(resources)-1]
	for _, resource := range resources {
		if len(os.Args) > 6 {
			if resource.path == os.Args[6] {
				chosen = resource
			}
			continue
		}
		if pick < resource.percent {
			chosen = resource
			break
		}
		pick -= resource.percent
	}
	namespace, name := fmt.Sprintf("ns-%03d", key%211), fmt.Sprintf("%s-%06d", chosen.path, key)
	var text strings.Builder
	length := size/2 + random.Intn(size)
	for text.Len() < length {
		start := random.Intn(len(words) - 12)
		fmt.Fprintf(&text, "%s%x ", words[start:start+12], random.Uint64())
	}
	value := fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"namespace":%q,"generation":%d,"annotations":{"note":%q}}}`,
		chosen.apiVersion, chosen.kind, name, namespace, revision, text.String())
	return "/registry/" + chosen.path + "/" + namespace + "/" + name, value
}

func main() {
	number := func(i int) int {
		value, err := strconv.Atoi(os.Args[i])
		check(err)
		return value
	}
	seed, live, revisions, size := int64(number(2)), number(3), number(4), number(5)
	config := clientv3.Config{Endpoints: []string{os.Args[1]}}
	if strings.HasPrefix(os.Args[1], "https:") {
		info := transport.TLSInfo{
			TrustedCAFile: os.Getenv("ETCDCTL_CACERT"),
			CertFile:      os.Getenv("ETCDCTL_CERT"),
			KeyFile:       os.Getenv("ETCDCTL_KEY"),
		}
		tls, err := info.ClientConfig()
		check(err)
		config.TLS = tls
	}
	client, err := clientv3.New(config)
	check(err)
	var tick <-chan time.Time
	if rate, err := strconv.Atoi(os.Getenv("LOADER_PER_SECOND")); err == nil {
		tick = time.Tick(time.Second / time.Duration(rate))
	}
	work := make(chan int, 1024)
	took := make([]time.Duration, revisions)
	var group sync.WaitGroup
	for range 256 {
		group.Add(1)
		go func() {
			defer group.Done()
			for revision := range work {
				key := revision
				if revision >= live {
					key = rand.New(rand.NewSource(seed + int64(revision))).Intn(live)
				}
				name, value := object(key, revision, seed, size)
				start := time.Now()
				_, err := client.Put(context.Background(), name, value)
				check(err)
				took[revision] = time.Since(start)
			}
		}()
	}
	for revision := range revisions {
		if tick != nil {
			<-tick
		}
		work <- revision
	}
	close(work)
	group.Wait()
	if tick != nil {
		slices.Sort(took)
		fmt.Println(took[len(took)/2].Microseconds(), took[len(took)*99/100].Microseconds())
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "loader:", err)
		os.Exit(1)
	}
}
