-- Charges all counters or none, or only looks at them. `limbs.lua` precedes it.
--
-- KEYS   1 to n: the counters, one for each charge.
--        n + 1: the record of the reservation; absent for a look.
--        the last: the counters of the asker, if there is one: a sorted set; a member is the end
--           of a key, after the prefix and the letter; its score is when the key expires, as far
--           as the asker's new counters have shown (in milliseconds).
-- ARGV   Little-endian doubles of eight bytes. All numbers of an argument are one text:
--        1: 1 to charge, 0 to look; the host's present; the largest skew between the clocks; how
--           long a counter is kept after its end (all in microseconds); the largest number of
--           counters of the asker, or 0 without one; then the eight bytes of the generation that a
--           new counter gets; then, as text, how long the record is kept (in milliseconds).
--        1 + i: of charge i, its kind; its amount in units and millionths; its maximum in units and
--           millionths, or -1 and 0 if it has none; then by kind
--           0, a fixed window: its start in microseconds, its seconds;
--           1, a sliding window: 0, its seconds;
--           2, a token bucket: 0, its seconds, and the rate: what comes back in a microsecond, in
--              whole millionths and parts (the seconds times 1e6 parts are a millionth);
--           3, in flight: 0, the seconds of the lease;
--           then, except for a token bucket, as text: when the counter expires if this charge is
--           the latest that it counts (in milliseconds). It is text because converting a number to
--           text takes as long as storing a counter.
--
-- Returns a text if all charges are made: for each charge the letter of its state, the generation
--         of the counter, and five doubles, which are an instant, another number, what the counter
--         then holds in units and millionths, and one without meaning. The first two are
--           F: the start of the window, its seconds
--           S: the instant of the charge, when the newest slot above zero was last charged or -1
--           B: the instant of the charge, the parts
--           I: the end of the last lease or -1, 0
--         Otherwise a list:
--           0, then the state of each counter, empty if there is none
--           1, then the milliseconds by which the host's clock is ahead of the server's
--           2 if a key holds a value that charges cannot produce
--           3, then the largest number of units in flight if a counter has reached it
--           4, then the largest number of counters of the asker if it would have more
--
-- States begin with a letter and the eight bytes of the counter's generation. The rest are doubles:
--         F start seconds used late   the latest charged window; how long it is kept after its end
--         S seconds sum slot*         a slot is when it was last charged, its sum; by that instant
--         B seconds at level parts    what was missing at an instant
--         I sum unit*                 a unit is the end of its lease, its amount; by that end
-- Sums are two doubles: units, millionths.

local pack, read, call = struct.pack, struct.unpack, redis.call
local charging, now, bound, late, share, new_generation = read('<dddddc8', ARGV[1])
local time = call('TIME')
local skew = now - (time[1] * 1e6 + time[2])
if skew > bound or skew < -bound then return {1, floor(skew / 1000)} end

local n = #ARGV - 1
local states = call('MGET', unpack(KEYS))
local record = charging == 1 and states[n + 1]
if record then return record end

-- MGET returns nil for a missing key and for a key of another type.
local missing
for i = 1, n do
  if not states[i] then
    missing = missing or {}
    missing[#missing + 1] = KEYS[i]
  end
end
if missing and call('EXISTS', unpack(missing)) > 0 then return {2} end

-- The keys of a store differ in what follows the prefix and a letter.
local own = share > 0 and missing and KEYS[#KEYS]
local common, fresh
if own then
  common = string.match(own, '^{[^}]*}:') .. 'c:'
  local present = time[1] * 1000 + floor(time[2] / 1000)
  -- Many more than a call adds, so that the counters that have ended are soon gone.
  for _, member in ipairs(call('ZRANGEBYSCORE', own, '-inf', present, 'LIMIT', 0, 64)) do
    -- A later charge may have prolonged it.
    local ends_at = call('PEXPIRETIME', common .. member)
    if ends_at > present then
      call('ZADD', own, ends_at, member)
      if call('PEXPIRETIME', own) < ends_at then call('PEXPIREAT', own, string.format('%d', ends_at)) end
    else
      call('ZREM', own, member)
    end
  end
  fresh = 0
  for i = 1, #missing do
    if not call('ZSCORE', own, string.sub(missing[i], #common + 1)) then fresh = fresh + 1 end
  end
end

local MAX_UNITS = 65536
local room = true
local changed, ends, answers = {}, {}, {}

for i = 1, n do
  local kind, ah, al, mh, ml, start, seconds, a, b = read('<ddddddddd', ARGV[i + 1])
  local state = states[i]
  local h, l = 0, 0
  local generation = new_generation
  local size, letter, head, tail
  if kind ~= 0 then
    if not plus then plus, minus, odd, broken, drain, drained_after, expiry = limbs() end
    if state then
      size, letter, generation = #state, string.byte(state), string.sub(state, 2, 9)
    end
  end

  if kind == 0 then
    if state then
      if #state ~= 49 then return {2} end
      local its, own, held, long, uh, ul, kept = read('<Bc8ddddd', state)
      generation = own
      -- NaN and infinities fail these checks too.
      if its ~= 70 or held % 1 ~= 0 or held > 9007199254740992 or held < -9007199254740992 or long % 1 ~= 0 or long < 1
        or long > 4294967295 or uh % 1 ~= 0 or ul % 1 ~= 0 or uh < 0 or ul < 0 or ul >= 1e6 or uh > END_H
        or (uh == END_H and ul > END_L) or kept % 1 ~= 0 or kept < 0 or kept > 9007199254740992 then
        return {2}
      end
      -- If the clock has stepped back, the later window stays.
      if held >= start then
        -- Setting the expiry again takes half as long as writing the key.
        head = kept >= late and kept
        tail = held > start
        start, seconds, h, l = held, long, uh, ul
      end
    end

  elseif kind == 1 then
    local slots, first, present, long = 0, 1, now, seconds * 1e6
    local newest, nh, nl
    if state then
      slots = (size - 33) / 24
      if letter ~= 83 or slots % 1 ~= 0 or slots < 1 or slots > 65 then return {2} end
      local its
      its, h, l = read('<ddd', state, 10)
      newest, nh, nl = read('<ddd', state, size - 23)
      if its ~= seconds or odd(h, l) or broken(newest) or odd(nh, nl) then return {2} end
      if newest > now then present = newest end
      -- Skip slots that have left, and subtract them. A saturated sum is added up anew.
      local whole = h < END_H or l < END_L
      while first <= slots do
        local last, sh, sl = read('<ddd', state, 10 + 24 * first)
        if broken(last) or odd(sh, sl) then return {2} end
        if last + long > present then break end
        if whole then h, l = minus(h, l, sh, sl) end
        first = first + 1
      end
      if not whole then
        h, l = 0, 0
        for j = first, slots do
          local _, sh, sl = read('<ddd', state, 10 + 24 * j)
          if odd(sh, sl) then return {2} end
          h, l = plus(h, l, sh, sl)
        end
      end
    end
    local width = seconds * 15625
    local upto = size
    if first <= slots and floor(newest / width) == floor(present / width) then
      -- The newest slot absorbs the charge.
      upto = size - 24
      nh, nl = plus(nh, nl, ah, al)
    else
      nh, nl = ah, al
    end
    start = present
    tail = (state and string.sub(state, 10 + 24 * first, upto) or '') .. pack('<ddd', present, nh, nl)
    -- A slot of zero has nothing that could leave.
    head = present
    if nh == 0 and nl == 0 then
      head = -1
      for j = state and (upto - 33) / 24 or 0, first, -1 do
        local last, sh, sl = read('<ddd', state, 10 + 24 * j)
        if sh > 0 or sl > 0 then
          head = last
          break
        end
      end
    end

  elseif kind == 2 then
    local w, at, r = seconds * 1e6, now, 0
    if state then
      if letter ~= 66 or size ~= 49 then return {2} end
      local its, seen
      its, seen, h, l, r = read('<ddddd', state, 10)
      if its ~= seconds or broken(seen) or odd(h, l) or broken(r) or r < 0 or r >= w then return {2} end
      if seen > now then
        at = seen
      else
        h, l, r = drain(h, l, r, w, a, b, now - seen)
      end
    end
    start, head = at, r
    -- The check rounds up; the state keeps the parts.
    if r > 0 then
      local uh, ul = plus(h, l, 0, 1)
      if mh >= 0 then
        local th, tl = plus(uh, ul, ah, al)
        if (mh == 0 and ml == 0) or th > mh or (th == mh and tl > ml) then room = false end
      end
      -- Already checked.
      mh = -1
    end

  else
    local units, first = 0, 1
    if state then
      units = (size - 25) / 24
      if letter ~= 73 or units % 1 ~= 0 or units < 0 then return {2} end
      h, l = read('<dd', state, 10)
      if odd(h, l) then return {2} end
      local whole = h < END_H or l < END_L
      while first <= units do
        local ends_at, uh, ul = read('<ddd', state, 24 * first + 2)
        if broken(ends_at) or odd(uh, ul) then return {2} end
        if ends_at > now then break end
        if whole then h, l = minus(h, l, uh, ul) end
        first = first + 1
      end
      if not whole then
        h, l = 0, 0
        for j = first, units do
          local _, uh, ul = read('<ddd', state, 24 * j + 2)
          if odd(uh, ul) then return {2} end
          h, l = plus(h, l, uh, ul)
        end
      end
    end
    local lease_ends = now + seconds * 1e6
    local last = -1
    if first <= units then last = read('<d', state, 24 * units + 2) end
    tail = ''
    if ah > 0 or al > 0 then
      if units - first + 1 >= MAX_UNITS then return {3, MAX_UNITS} end
      -- Find the place of the unit, from the last backwards.
      local at, uh, ul, after = units, ah, al, units + 1
      while at >= first do
        local ends_at, eh, el = read('<ddd', state, 24 * at + 2)
        if ends_at < lease_ends then break end
        after = at
        if ends_at == lease_ends then
          uh, ul = plus(eh, el, ah, al)
          after, at = at + 1, at - 1
          break
        end
        at = at - 1
      end
      local unit = pack('<ddd', lease_ends, uh, ul)
      if state then
        tail = string.sub(state, 24 * first + 2, 24 * at + 25) .. unit .. string.sub(state, 24 * after + 2)
      else
        tail = unit
      end
      if lease_ends > last then last = lease_ends end
    elseif first <= units then
      tail = string.sub(state, 24 * first + 2)
    end
    start = last
  end

  local th, tl = h + ah, l + al
  if tl >= 1e6 then th, tl = th + 1, tl - 1e6 end
  if th > END_H or (th == END_H and tl > END_L) then th, tl = END_H, END_L end
  if mh >= 0 and ((mh == 0 and ml == 0) or th > mh or (th == mh and tl > ml)) then room = false end

  if charging == 1 and room then
    local expires
    if kind == 0 then
      local new = pack('<Bc8ddddd', 70, generation, start, seconds, th, tl, head or late)
      changed[i], answers[i] = new, new
      if tail and not head then expires = start + seconds * 1e6 end
    elseif kind == 1 then
      changed[i] = pack('<Bc8ddd', 83, generation, seconds, th, tl) .. tail
      answers[i] = pack('<Bc8ddddd', 83, generation, start, head, th, tl, 0)
      if start > now then expires = start + seconds * 1e6 end
    elseif kind == 2 then
      -- A saturated level has no parts.
      if th == END_H and tl == END_L then head = 0 end
      changed[i] = pack('<Bc8ddddd', 66, generation, seconds, start, th, tl, head)
      answers[i] = pack('<Bc8ddddd', 66, generation, start, head, th, tl, 0)
      expires = start + drained_after(th, tl, head, seconds * 1e6, a, b) + BUCKET_KEPT
    else
      -- Also without any unit, so that the generation is kept until the leases end.
      changed[i] = pack('<Bc8dd', 73, generation, th, tl) .. tail
      answers[i] = pack('<Bc8ddddd', 73, generation, start, 0, th, tl, 0)
      if start > now + seconds * 1e6 then expires = start end
    end
    if expires then
      if not expiry then plus, minus, odd, broken, drain, drained_after, expiry = limbs() end
      ends[i] = expiry(expires, late)
    elseif kind ~= 0 or not head then
      ends[i] = string.sub(ARGV[i + 1], 73)
    end
  end
end

if own and room and fresh > 0 and call('ZCARD', own) + fresh > share then return {4, share} end

if charging ~= 1 or not room then
  local answer = {0}
  for i = 1, n do answer[i + 1] = states[i] or '' end
  return answer
end

local answer = n == 1 and answers[1] or table.concat(answers)
-- Written first: a full server refuses here, before anything is charged.
if not call('SET', KEYS[n + 1], answer, 'NX', 'PX', string.sub(ARGV[1], 49)) then return {2} end
for i = 1, n do
  if own and not states[i] and ends[i] then
    call('ZADD', own, ends[i], string.sub(KEYS[i], #common + 1))
    if call('PEXPIRETIME', own) < tonumber(ends[i]) then call('PEXPIREAT', own, ends[i]) end
  end
  if ends[i] then
    call('SET', KEYS[i], changed[i], 'PXAT', ends[i])
  else
    call('SET', KEYS[i], changed[i], 'KEEPTTL')
  end
end
return answer
