"""When LIEC-SGD is worth using, as these figures show it."""

ADVICE = (
    "Where LIEC-SGD is the right choice: clients whose data are alike (data-parallel training), messages "
    "compressed hard, a downlink that costs as well. Its error stays small because it is paid back at once, and "
    "no client keeps one. Where it is not: clients that differ, since between two synchronisations it is local "
    "training, so that its floor rises with the period, beyond DoubleSqueeze's for long ones (EF21, DIANA or Dore "
    "have none); step sizes near 1/L, since period and step size must be chosen together; and short periods, "
    "whose dense vectors outweigh what compression saves."
)
