package testserver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDynamoDBKeepsItsDataOverKillAndRestart(t *testing.T) {
	server := StartDynamoDB(t)
	require.Error(t, dynamoDBDo(t.Context(), server.Addr(), "DescribeTable", `{"TableName": "kept"}`))
	require.NoError(t, dynamoDBDo(t.Context(), server.Addr(), "CreateTable", `{
		"TableName": "kept", "BillingMode": "PAY_PER_REQUEST",
		"KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
		"AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}]}`))
	require.NoError(t, server.Kill())
	require.NoError(t, server.Restart())
	require.NoError(t, dynamoDBDo(t.Context(), server.Addr(), "DescribeTable", `{"TableName": "kept"}`))
}

func TestDynamoDBIsShared(t *testing.T) {
	t.Setenv("VALKEYRIE_TEST_DYNAMODB", "")
	require.Equal(t, DynamoDB(t), DynamoDB(t))
}
