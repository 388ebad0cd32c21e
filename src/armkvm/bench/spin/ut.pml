/* The notification protocol of a user-space interrupt controller, as an independent statement.
 *
 * N vCPUs (1 or 2) on one physical CPU; each has a level-triggered timer, a thread of user space
 * and an interrupt controller there. It follows KVM_RUN of Linux 6.12 in the order in which the
 * things happen that others can see: the host's interrupt is masked when the vCPU is loaded or the
 * interrupt is taken, and unmasked after an exit that finds the level low; a level that user space
 * was not told ends KVM_RUN before the guest is entered. A step is what armkvm's checker lets
 * nobody come between: for one vCPU both then have the same states, as far as they share variables.
 *
 * -DN=1|2, and one of -DM_NONOTIFY (the guest is entered with an untold level), -DM_NOMASK (the
 * host's interrupt is never masked), -DM_NOUNMASK (never unmasked), -DM_NOWAKE (the timer does not
 * end a WFI), -DM_MASKLOST (loading leaves the mask as it is), -DM_NOSYNC (the level is not
 * written). -DFAIR adds to two vCPUs what liveness needs of a scheduler: whoever waits for the CPU
 * comes next, and a guest gets one step between two ticks and no more.
 *
 * Left out: the physical timer, signals, lines from other threads, a vgic.
 */
#ifndef N
#define N 1
#endif
#define IDLE 2

bit en[N], im[N];                /* CNTV_CTL: ENABLE, IMASK */
bit cond[N] = 1;                 /* CVAL has been reached; it is 0 at reset */
bit told[N];                     /* device_irq_level */
bit wire[N], acked[N];           /* the interrupt controller in user space */
bit line[N];                     /* HCR_EL2.VI, by KVM_IRQ_LINE */
bit psti[N] = 1;                 /* PSTATE.I */
bit inguest[N];
bit masked;                      /* the host's interrupt, of the CPU */
byte loaded = IDLE;              /* which vCPU the CPU has */
byte storm[N];                   /* host interrupts since the last guest instruction */

#define HIGH(i) (en[i] && !im[i] && cond[i])
#define IRQ(i)  (HIGH(i) && !masked)

#ifdef M_NOMASK
#define MASK skip
#else
#define MASK masked = 1
#endif
#ifdef M_NOUNMASK
#define UNMASK skip
#else
#define UNMASK masked = 0
#endif
#ifdef M_NONOTIFY
#define UNTOLD(i) false
#else
#define UNTOLD(i) (HIGH(i) != told[i])
#endif

bit soft[N], woken[N];           /* the soft timer of a vCPU that sleeps: is armed, has fired */
#if N > 1
bit armed[N];                    /* the other's was, when this one was entered: it ends the stay */
#define EVENT(i) (armed[i] && cond[1 - i])
#define ARM(i)   armed[i] = soft[1 - i]
#define LEFT(i)  armed[i] = 0
#else
#define EVENT(i) false
#define ARM(i)   skip
#define LEFT(i)  skip
#endif

#if N > 1 && defined(FAIR)
bit wants[N], stepped[N];
byte last = IDLE;
#define TURN(i) (!(last == i && wants[1 - i]))
#define TICK(i) (wants[1 - i] && stepped[i])
#define WANT(i) wants[i] = 1
#define HAS(i)  wants[i] = 0; last = i
#define STEPPED(i, v) stepped[i] = v
#else
#define TURN(i) true
#define TICK(i) false
#define WANT(i) skip
#define HAS(i)  skip
#define STEPPED(i, v) skip
#endif

inline load(i) {                 /* kvm_sched_in(), kvm_timer_vcpu_load_gic() */
  WANT(i);
  atomic {
    loaded == IDLE && TURN(i) -> loaded = i; HAS(i);
#ifndef M_MASKLOST
    if :: HIGH(i) -> MASK :: else -> UNMASK fi
#endif
  }
}

inline sync(i) {                 /* kvm_timer_sync_user() */
  if :: !HIGH(i) -> UNMASK :: else fi
}

inline take(i) {                 /* local_irq_enable(): acknowledged, and active from then on */
  if :: IRQ(i) -> MASK :: else fi;
#if N > 1
  if :: soft[1 - i] && cond[1 - i] -> soft[1 - i] = 0; woken[1 - i] = 1 :: else fi
#endif
}

inline drive(i) { line[i] = wire[i] && !acked[i] }

mtype = { RUN, ACK, DEVICE, EOI };     /* what user space has to do */
mtype = { MAIN, HANDLER, RETURN };     /* where the guest is */

proctype vcpu(byte i) {
  mtype todo = RUN, at = MAIN;
user:
  load(i);
entry:                           /* interrupts off: the last look before the guest */
  atomic {
    if
    :: UNTOLD(i) -> todo = RUN; sync(i); take(i); goto leave
    :: else -> STEPPED(i, 0); ARM(i); inguest[i] = 1
    fi
  };
guest:
  atomic {
    if
    :: IRQ(i) ->
       inguest[i] = 0; assert(storm[i] < 3); storm[i]++; goto irq
    :: !IRQ(i) && EVENT(i) ->
       inguest[i] = 0; sync(i); goto irq
    :: !IRQ(i) && !EVENT(i) && line[i] && !psti[i] ->    /* the exception, and the IAR read */
       psti[i] = 1; storm[i] = 0; todo = ACK; inguest[i] = 0; sync(i); goto leave
    :: !IRQ(i) && !EVENT(i) && !(line[i] && !psti[i]) && TICK(i) ->
       inguest[i] = 0; sync(i); goto tick
    :: !IRQ(i) && !EVENT(i) && !(line[i] && !psti[i]) && !TICK(i) ->
       STEPPED(i, 1); storm[i] = 0;
       if
       :: at == HANDLER ->
          at = RETURN;
          if :: im[i] = 1 :: en[i] = 0 :: cond[i] = 0 fi;
          goto guest
       :: at == RETURN && acked[i] ->
          todo = EOI; inguest[i] = 0; sync(i); goto leave
       :: else ->
          if :: at == RETURN -> psti[i] = 0; at = MAIN :: else fi;
          if
          :: cond[i] = 0; goto guest                     /* a deadline in the future */
          :: en[i] = 1; im[i] = 0; goto guest
          :: en[i] -> im[i] = 1 - im[i]; goto guest      /* poll */
          :: en[i] = 0; goto guest
          :: psti[i] = 1 - psti[i]; goto guest           /* a critical section */
          :: todo = DEVICE; inguest[i] = 0; sync(i); goto leave
          :: en[i] && !im[i] -> inguest[i] = 0; sync(i); goto wfi
          :: inguest[i] = 0; sync(i); goto tick          /* the host's tick, the slice is over */
          fi
       fi
    fi
  };
irq:
  atomic { take(i); LEFT(i); goto entry };
tick:
  atomic { take(i); LEFT(i) };
  loaded = IDLE;
  load(i);
  goto entry;
wfi:                             /* kvm_vcpu_check_block() */
  atomic {
    if :: EVENT(i) -> take(i) :: else fi;
    LEFT(i);
    if
    :: (line[i] || UNTOLD(i)) && TICK(i) -> goto tick
    :: (line[i] || UNTOLD(i)) && !TICK(i) -> goto entry
    :: else
    fi
  };
  atomic {                       /* kvm_timer_blocking() */
#ifndef M_NOWAKE
    soft[i] = en[i] && !im[i] && !(cond[i] && told[i]);
#endif
    loaded = IDLE
  };
  atomic { woken[i] || (soft[i] && cond[i]) -> soft[i] = 0; woken[i] = 0 };
  load(i);
  goto wfi;
leave:                           /* kvm_timer_update_run(), vcpu_put() */
  atomic {
    if :: todo != RUN && EVENT(i) -> take(i) :: else fi;
    LEFT(i)
  };
#ifndef M_NOSYNC
  told[i] = HIGH(i);
#endif
  loaded = IDLE;
  d_step {                       /* user space; others see of its controller the line alone */
    wire[i] = told[i];
    if :: todo == EOI -> acked[i] = 0 :: else fi;
    drive(i)
  };
  if
  :: d_step { todo == ACK -> acked[i] = wire[i]; drive(i) };
     if :: acked[i] -> at = HANDLER :: else -> at = RETURN fi
  :: else
  fi;
  todo = RUN;
  goto user
}

proctype clock() {               /* each timer's deadline comes at any moment */
  do
  :: atomic { en[0] && !cond[0] -> cond[0] = 1 }
#if N > 1
  :: atomic { en[1] && !cond[1] -> cond[1] = 1 }
#endif
  od
}

init {
  atomic {
    run clock(); run vcpu(0);
#if N > 1
    run vcpu(1)
#endif
  }
}

/* What this and armkvm both have, as a number; which numbers came up is printed at the end. */
c_decl {
static unsigned char seen[1 << (9 * N + 3)];
static int print_at_end;
static void print_seen(void) {
  long n;
  for (n = 0; n < (long) sizeof seen; n++)
    if (seen[n]) printf("seen %lx\n", n);
}
}
c_code {
\#define RECORD record()          /* a claim may not call a function by its name */
static int record(void) {
  unsigned long n = 0;
  int i;
  for (i = 0; i < N; i++) {
    n = n << 9 | now.en[i] << 8 | now.im[i] << 7 | (now.en[i] && now.cond[i]) << 6;
    n |= now.told[i] << 5 | now.wire[i] << 4 | now.acked[i] << 3 | now.line[i] << 2;
    n |= now.psti[i] << 1 | now.inguest[i];
  }
  n = n << 3 | now.masked << 2 | now.loaded;
  if (!print_at_end) { print_at_end = 1; atexit(print_seen); }
  seen[n] = 1;
  return 1;
}
}
never states { do :: c_expr { RECORD } od }

/* The guest runs, the level is high, nobody was told and the host's interrupt cannot tell. */
#define UNSEEN(i) (inguest[i] && masked && HIGH(i) && !told[i])
#define WAITS(i)  (HIGH(i) && !psti[i])
#if N > 1
ltl safe { [] (!UNSEEN(0) && !UNSEEN(1) && !(inguest[0] && inguest[1])) }
#else
ltl safe { [] !UNSEEN(0) }
#endif
/* A level that stays high with interrupts on is taken. */
ltl live { [] (WAITS(0) -> <> !WAITS(0)) }
