-- Say that a worker is alive, and what it is at.
--
-- KEYS  1 workers
-- ARGV  1 its id  2 what it says
redis.call('HDEL', KEYS[1], ARGV[1])  -- needs no memory, so that the rest is written however full Redis is
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
