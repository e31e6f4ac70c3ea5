-- What the sequence has come to at least, by what was numbered with it. Included by the scripts that need it.
local SEQUENCE_MOST = '900000000000000'  -- what lies beyond was never given out; scores are exact up to ten times that
local SEQUENCE_GAP = 1000  -- what was numbered and is gone, or listed elsewhere

-- Tell the highest number of the last event of a stream and in some indexes; 0 where there is none.
local function sequence_top(events, indexes)
  local top = 0
  for _, entry in ipairs(redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)) do
    for i = 1, #entry[2], 2 do
      local number = entry[2][i] == 'seq' and string.match(entry[2][i + 1], '^%d+$') and tonumber(entry[2][i + 1])
      if number and number <= tonumber(SEQUENCE_MOST) then top = math.max(top, number) end
    end
  end
  for _, index in ipairs(indexes) do
    local found = redis.call('ZREVRANGEBYSCORE', index, SEQUENCE_MOST, 1, 'WITHSCORES', 'LIMIT', 0, 1)
    if found[2] then top = math.max(top, math.floor(tonumber(found[2]))) end
  end
  return top
end
