-- Have a task of an ended job be looked at no more, where the step that would say so cannot be written.
--
-- KEYS  1 job record  2 track wheel  3 its leases
-- ARGV  1 rev  2 new rev  3 the record's state in which the task is over  4 the task's member
-- RETURNS  1 written, 0 the record has moved on
if redis.call('HGET', KEYS[1], 'rev') ~= ARGV[1] then return 0 end
redis.call('ZCARD', KEYS[2]); redis.call('HLEN', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[4])
redis.call('HDEL', KEYS[3], ARGV[4])
redis.call('HSET', KEYS[1], 'rev', ARGV[2], 'state', ARGV[3])
return 1
