/* The slot rules of the switch (p4/aggregate.p4), shared by both models.
 *
 * A model that includes this file defines RANKS and SLOTS, and these places of its own:
 *   RESULT_TO(to, eno, cno)  the network now holds a RESULT for the ranks in bitmap `to`, labelled
 *                          with epoch `eno` and chunk `cno`; `summed` tells which sum it carries.
 *
 * Lanes are formal sums: part[r] is the tag of what rank r has added, 0 for nothing, DOUBLE if r was
 * added twice. Tags are unique to one payload of one grant of a lease, so a sum that misses an
 * addend, has one twice or has one of another chunk is never equal to a right one.
 */
#define FULL   ((1 << RANKS) - 1)
#define DOUBLE 255

#ifndef WINDOW
#define WINDOW 1
#endif
#define LEASE_SLOTS (2 * WINDOW)

/* Wire numbers. Chunks live on a circle of 16 and start shortly before its end, so they wrap. */
#define CHUNK_OF(position) ((14 + (position)) & 15)
#define POSITION_OF(chunk) (((chunk) - 14) & 15)
#define SLOT_OF(area, position) ((area) * LEASE_SLOTS + (position) % LEASE_SLOTS)

/* Serial numbers (RFC 1982): ahead by less than half of the circle is newer. */
#ifdef PLAIN_COMPARE
#define NEWER_CHUNK(a, b) ((a) > (b))
#elif defined(NO_SERIAL_COMPARE)
#define NEWER_CHUNK(a, b) ((a) != (b))
#else
#define NEWER_CHUNK(a, b) ((a) != (b) && (((a) - (b)) & 15) < 8)
#endif
#ifdef NO_EPOCH_COMPARE
#define NEWER_EPOCH(a, b) false
#define SAME_EPOCH(a, b)  true
#else
#define NEWER_EPOCH(a, b) ((a) != (b) && (((a) - (b)) & 15) < 8)
#define SAME_EPOCH(a, b)  ((a) == (b))
#endif

typedef Slot {
  byte epoch;  /* 0: never used */
  byte chunk;
  byte bitmap;
  byte part[RANKS]
};
Slot slot[SLOTS];

#define CLAIMS(s, eno, cno) \
  (slot[s].epoch == 0 || NEWER_EPOCH(eno, slot[s].epoch) || \
   (SAME_EPOCH(eno, slot[s].epoch) && NEWER_CHUNK(cno, slot[s].chunk)))
#define SAME(s, eno, cno) \
  (slot[s].epoch != 0 && SAME_EPOCH(eno, slot[s].epoch) && slot[s].chunk == (cno))
#define IN_BITMAP(s, r) ((slot[s].bitmap >> (r)) & 1)
#define COMPLETE(s) (slot[s].bitmap == FULL)

#ifdef RESULT_BEFORE_COMPARE
#define RESENDS(s, r, eno, cno) (slot[s].epoch != 0 && COMPLETE(s) && IN_BITMAP(s, r))
#elif defined(STALE_ANSWERED)
#define RESENDS(s, r, eno, cno) (!CLAIMS(s, eno, cno) && COMPLETE(s) && IN_BITMAP(s, r))
#elif defined(RESULT_ONCE)
#define RESENDS(s, r, eno, cno) false
#else
#define RESENDS(s, r, eno, cno) (SAME(s, eno, cno) && COMPLETE(s) && IN_BITMAP(s, r))
#endif
#ifdef NO_BITMAP_CHECK
#define ADDS(s, r, eno, cno) (SAME(s, eno, cno) && !COMPLETE(s))
#else
#define ADDS(s, r, eno, cno) (SAME(s, eno, cno) && !IN_BITMAP(s, r))
#endif

#ifdef LABEL_FROM_REQUEST
#define LABEL_EPOCH(s, eno) (eno)
#define LABEL_CHUNK(s, cno) (cno)
#else
#define LABEL_EPOCH(s, eno) (slot[s].epoch)
#define LABEL_CHUNK(s, cno) (slot[s].chunk)
#endif

/* Whether a contribution that is sent again brings its sender nearer to the result. What is left,
 * stale ones and those that WAIT answers, changes nothing. */
#define USEFUL(s, r, eno, cno) \
  ((RESENDS(s, r, eno, cno) && LABEL_EPOCH(s, eno) == (eno) && LABEL_CHUNK(s, cno) == (cno)) || \
   (!RESENDS(s, r, eno, cno) && (CLAIMS(s, eno, cno) || ADDS(s, r, eno, cno))))

/* Whether it changes the switch or the network at all. */
#define EFFECTIVE(s, r, eno, cno) \
  (RESENDS(s, r, eno, cno) || CLAIMS(s, eno, cno) || ADDS(s, r, eno, cno))

byte s_i;
byte summed;  /* the tag that all addends of a complete sum have, 0 if they differ */

inline read_sum(s) {
  summed = slot[s].part[0];
  s_i = 0;
  do
  :: s_i < RANKS -> if :: slot[s].part[s_i] != slot[s].part[0] -> summed = 0 :: else fi; s_i++
  :: else -> break
  od;
  if :: summed == DOUBLE -> summed = 0 :: else fi;
  s_i = 0
}

inline put_part(s, r, tag) {
  if
  :: slot[s].part[r] == 0 -> slot[s].part[r] = tag
  :: else -> slot[s].part[r] = DOUBLE
  fi
}

/* Rules 3 to 5 for a member's contribution; rules 1 and 2 are the caller's (membership). */
inline contribute(s, r, eno, cno, tag) {
  if
  :: RESENDS(s, r, eno, cno) ->
       read_sum(s);
       RESULT_TO(1 << r, LABEL_EPOCH(s, eno), LABEL_CHUNK(s, cno))
  :: else ->
       if
       :: CLAIMS(s, eno, cno) ->
            slot[s].epoch = eno;
            slot[s].chunk = cno;
#ifndef BITMAP_NOT_RESET
            slot[s].bitmap = 0;
#endif
            s_i = 0;
            do
            :: s_i < RANKS -> slot[s].part[s_i] = 0; s_i++
            :: else -> break
            od;
            s_i = 0;
            put_part(s, r, tag);
            slot[s].bitmap = slot[s].bitmap | (1 << r);
            if
            :: COMPLETE(s) -> read_sum(s); RESULT_TO(FULL, slot[s].epoch, slot[s].chunk)
            :: else
            fi
       :: else ->
            if
            :: ADDS(s, r, eno, cno) ->
                 put_part(s, r, tag);
                 slot[s].bitmap = slot[s].bitmap | (1 << r);
                 if
                 :: COMPLETE(s) -> read_sum(s); RESULT_TO(FULL, slot[s].epoch, slot[s].chunk)
                 :: else
                 fi
            :: else  /* stale, or WAIT */
            fi
       fi
  fi
}
