-- Puts a shelf of approvals in the place of the one that was read, if that is still there, and sets the indexes right.
--
-- KEYS   1: the shelf: a nonce of 32 characters that each writer draws anew, and its text.
--        2: all that live, by their ends: a sorted set, each member a digest's 32 bytes and a number's 8.
--        3: what waits for people, by when it was asked for; members as in 2.
--        4: the last number that was given.
--        5: what waits of the same asker, by its end; members as in 2.
-- ARGV   1: the nonce that was read, empty if there was no shelf.  2: the new shelf with its nonce; empty to delete it.  3: the new
--        nonce.  4: the host's present; 5: how far the clocks may be apart (microseconds).  6: when the shelf expires
--        (milliseconds).  7: how many may live; 8: how many of one asker may wait.  9: '' if nothing new is on the shelf, 's' for
--        something that was spent, else the number of a new request.  10 and on, three for each place that changes: the member;
--        its end, empty if it is no more; since when it waits, empty if it does not (microseconds).
--
-- Answers a list: 0 if it is done, now or earlier; 1 and the milliseconds that the host's clock is ahead; 2 if a key holds what
--        nobody has put there; 3 if another shelf is there; 4 if so many live; 5 if so many wait; 6 and a number, if the last number that
--        was given is not below the new one.

local call = redis.call
local time = call('TIME')
local now, bound = tonumber(ARGV[4]), tonumber(ARGV[5])
local skew = now - (time[1] * 1e6 + time[2])
if skew > bound or skew < -bound then return {1, math.floor(skew / 1000)} end

local kept = call('GET', KEYS[1])
local nonce = kept and string.sub(kept, 1, 32) or ''
-- The answer was lost, and this is the same request again.
if nonce == ARGV[3] then return {0} end
if nonce ~= ARGV[1] then return {3} end
-- What holds something else stops here, before anything is written.
call('ZCARD', KEYS[2])
call('ZCARD', KEYS[3])
call('ZCARD', KEYS[5])
local last = call('GET', KEYS[4])

local new = ARGV[9]
if new ~= '' then
  -- More than one, so that what has expired becomes less.
  for _, member in ipairs(call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[4], 'LIMIT', 0, 64)) do
    call('ZREM', KEYS[2], member)
    call('ZREM', KEYS[3], member)
  end
  if call('ZCOUNT', KEYS[2], '(' .. ARGV[4], '+inf') >= tonumber(ARGV[7]) then return {4} end
  if new ~= 's' then
    call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[4])
    if call('ZCARD', KEYS[5]) >= tonumber(ARGV[8]) then return {5} end
    if last then
      local given = tonumber(last)
      if not given then return {2} end
      if given >= tonumber(new) then return {6, given} end
    end
  end
end

-- Gives a key at least so long to live.
local function keep(key, till)
  if call('PTTL', key) < 0 then call('PEXPIREAT', key, till) else call('PEXPIREAT', key, till, 'GT') end
end

-- The first to be written that takes room: a server that has none refuses here.
if ARGV[2] == '' then call('DEL', KEYS[1]) else call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[6]) end
local lives, waits
for i = 10, #ARGV, 3 do
  local member, ends, since = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if ends == '' then
    call('ZREM', KEYS[2], member)
  else
    call('ZADD', KEYS[2], ends, member)
    lives = true
  end
  if since == '' then
    call('ZREM', KEYS[3], member)
    call('ZREM', KEYS[5], member)
  else
    call('ZADD', KEYS[3], since, member)
    call('ZADD', KEYS[5], ends, member)
    waits = true
  end
end
if lives then keep(KEYS[2], ARGV[6]) end
if waits then
  keep(KEYS[3], ARGV[6])
  keep(KEYS[5], ARGV[6])
end
-- A day longer: no number is given twice, though the clock was ahead when it was given.
if new ~= '' and new ~= 's' then
  call('SET', KEYS[4], new)
  call('PEXPIREAT', KEYS[4], string.format('%d', tonumber(ARGV[6]) + 86400000))
end
return {0}
