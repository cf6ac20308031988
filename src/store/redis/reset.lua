-- Forgets what a counter holds.
--
-- KEYS   1: the counter.
--        2: the record of the reset.
-- ARGV   1: the eight bytes of the next generation.
--        2: how long the record is kept (in milliseconds), as text.
--
-- Token buckets and calls in flight are kept, empty: without them, a charge that was made before
-- would be recorded as one of a counter that has expired. `reserve.lua` describes the states.
--
-- Returns a list: 0.

if not redis.call('SET', KEYS[2], 's', 'NX', 'PX', ARGV[2]) then return {0} end
local state = redis.call('MGET', KEYS[1])[1]
local letter = state and string.sub(state, 1, 1)
local empty
if letter == 'B' and #state == 49 then
  empty = string.sub(state, 10, 17) .. struct.pack('<dddd', 0, 0, 0, 0)
elseif letter == 'I' then
  empty = struct.pack('<dd', 0, 0)
end
if empty then
  redis.call('SET', KEYS[1], letter .. ARGV[1] .. empty, 'KEEPTTL')
else
  redis.call('DEL', KEYS[1])
end
return {0}
