NOT_RUN = {"trace": "numbanet.trace records a graph"}
VALUES_NOT_COMPARED=frozenset("""bernoulli empty empty_like new_empty normal normal.number_mean normal.in_place rand_like randint randint_like randn randn_like""".split())
def reason_of(name, sample, failure): return None
