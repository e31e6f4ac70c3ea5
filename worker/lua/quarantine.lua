-- Take a job whose record cannot be read off everything that would come back to it, and note since when it lies there.
--
-- KEYS  1 quarantine  2 deadlines  3 ended jobs  4 track wheel  5 its leases  6... submit wheels and their leases, by turns
-- ARGV  1 job id  2 the time (ms)  3 how many submit wheels  4 the track wheel's member, '' for none
--       (after the submit wheels' keys: the indexes)
-- RETURNS  1 it lies there from now on, 0 it did before
-- INVARIANT  the record itself stays as it is: it is what the operator has to mend, and what keeps the id taken.
local wheels = tonumber(ARGV[3])
for i = 1, #KEYS do
  local is_lease = i == 5 or (i > 5 and i <= 5 + 2 * wheels and i % 2 == 1)
  redis.call(is_lease and 'HLEN' or 'ZCARD', KEYS[i])
end
for i = 2, #KEYS do
  if i == 4 or i == 5 then
    if ARGV[4] ~= '' then redis.call(i == 5 and 'HDEL' or 'ZREM', KEYS[i], ARGV[4]) end
  elseif i > 5 and i <= 5 + 2 * wheels and i % 2 == 1 then
    redis.call('HDEL', KEYS[i], ARGV[1])
  else
    redis.call('ZREM', KEYS[i], ARGV[1])
  end
end
return redis.call('ZADD', KEYS[1], 'NX', ARGV[2], ARGV[1])
