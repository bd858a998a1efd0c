"""What the tests of ``rotate`` share."""

from qcomp.passmanager import Context, Pipeline


def rotated(model, text="rotate", context=None):
    context = context or Context()
    Pipeline.parse(text).run(model, context)
    return context


def arrays_of(model):
    return {n: v.const_value.numpy() for n, v in model.model.graph.initializers.items()}
