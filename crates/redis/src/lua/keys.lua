#!lua flags=no-writes
-- A page of SCAN: in a script, so that in a cluster it goes to where the shard is.
--
-- KEYS[1]  the prefix of the shard's keys
-- ARGV     1 cursor, 2 pattern, 3 count
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
