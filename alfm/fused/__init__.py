"""Operations that a card does in one kernel of ours, where torch's own operations go over memory many times.

Each is an operation of torch's, with a module here, whose text in torch's operations runs wherever there is no kernel,
and one in `kernels`, in Triton's language. A card without Triton (Windows) does without them.
"""
