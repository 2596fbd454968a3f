package dynamodb

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	"golang.org/x/sync/errgroup"
)

const (
	// lookout is how often to look for shards that nothing announced.
	lookout = time.Minute

	// positionsAtOnce bounds how many shards are begun side by side.
	positionsAtOnce = 8
)

// follower is the part of a reader that follows shards; one goroutine has it.
type follower struct {
	*reader
	arn       *string
	known     map[string]bool // shards that are read, were read, or ended before
	childless map[string]bool // shards that ended and whose successors have not shown
	reading   int             // shards
	looked    time.Time       // for new shards
}

// position begins with each open shard where it is now. Each is read once before
// anybody relies on it, whatever "latest" means to a server until then.
func (f *follower) position() error {
	all, err := f.list()
	if err != nil {
		return err
	}
	var open []types.Shard
	for _, shard := range all {
		f.known[aws.ToString(shard.ShardId)] = true
		if shard.SequenceNumberRange == nil || shard.SequenceNumberRange.EndingSequenceNumber == nil {
			open = append(open, shard)
		}
	}
	var positioning errgroup.Group
	positioning.SetLimit(positionsAtOnce)
	iterators := make([]*string, len(open))
	for i, shard := range open {
		positioning.Go(func() error {
			latest, err := f.iterator(shard.ShardId, types.ShardIteratorTypeLatest)
			if err == nil {
				_, iterators[i], err = f.records(latest)
			}
			return err
		})
	}
	if err := positioning.Wait(); err != nil {
		return err
	}
	for i, shard := range open {
		f.start(aws.ToString(shard.ShardId), iterators[i])
	}
	return nil
}

// follow looks after the shards until the reader ends.
func (f *follower) follow() error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case shard := <-f.finished:
			f.reading--
			f.childless[shard] = true
		case <-tick.C:
			f.leave()
			if len(f.childless) == 0 && time.Since(f.looked) < lookout {
				continue
			}
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		}
		if err := f.discover(); err != nil {
			return err
		}
	}
}

// discover begins to read shards that are new, from their beginning.
func (f *follower) discover() error {
	shards, err := f.list()
	if err != nil {
		return err
	}
	for _, shard := range shards {
		delete(f.childless, aws.ToString(shard.ParentShardId))
		id := aws.ToString(shard.ShardId)
		if f.known[id] {
			continue
		}
		f.known[id] = true
		iterator, err := f.iterator(shard.ShardId, types.ShardIteratorTypeTrimHorizon)
		if err != nil {
			return err
		}
		f.start(id, iterator)
	}
	return nil
}

// list returns all shards of the stream.
func (f *follower) list() ([]types.Shard, error) {
	f.looked = time.Now()
	var shards []types.Shard
	in := &dynamodbstreams.DescribeStreamInput{StreamArn: f.arn}
	for {
		answer, err := read(f.ctx, f.d, func(ctx context.Context) (*dynamodbstreams.DescribeStreamOutput, error) {
			return f.d.streams.DescribeStream(ctx, in)
		})
		if err != nil {
			return nil, err
		}
		shards = append(shards, answer.StreamDescription.Shards...)
		if in.ExclusiveStartShardId = answer.StreamDescription.LastEvaluatedShardId; in.ExclusiveStartShardId != nil {
			continue
		}
		if f.reading == 0 && answer.StreamDescription.StreamStatus == types.StreamStatusDisabled {
			return nil, errStreamEnded
		}
		return shards, nil
	}
}

func (f *follower) iterator(shard *string, from types.ShardIteratorType) (*string, error) {
	answer, err := read(f.ctx, f.d, func(ctx context.Context) (*dynamodbstreams.GetShardIteratorOutput, error) {
		return f.d.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{
			StreamArn: f.arn, ShardId: shard, ShardIteratorType: from,
		})
	})
	if err != nil {
		return nil, err
	}
	return answer.ShardIterator, nil
}

// start begins to read a shard.
func (f *follower) start(shard string, iterator *string) {
	f.reading++
	f.shards.Go(func() { f.readShard(shard, iterator) })
}
