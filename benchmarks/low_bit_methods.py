"""The methods that ``low_bit.py`` compares, a line each: the passes of each as text."""

from __future__ import annotations

from dataclasses import dataclass

from quantize_tasks import Task

FRONT = (
    "freeze-defaults,canonicalise,inline-functions,widen-floats,take-apart,fold-constants,"
    "canonicalise,fuse-batch-norm,"
)
BACK = ",halve-constants,restore-halves,tie-weights"

STORE4 = "quantize-embeddings,quantize-weights{symmetric=false}"
TABLE4 = STORE4.replace("quantize-embeddings", "quantize-embeddings{bits=4}")
STORE128 = STORE4.replace("}", ",group=128}")
STORE3 = "quantize-embeddings,quantize-weights{symmetric=false,bits=3,form=int8}"
STORE2 = "quantize-embeddings,quantize-weights{symmetric=false,bits=2,group=16,form=int8}"
FOLD4 = "quantize-embeddings,quantize-weights{symmetric=false,form=int8}"
TOKENS = "quantize-embeddings,quantize-tokens"
RANGES = "calibrate{method=percentile},"
STATIC4 = "quantize-static{weight-bits=4},correct-bias"
BLOCKS32 = STATIC4.replace("weight-bits=4", "weight-bits=4,group=32")
ORDERED = "order=activation"
DECODER = ("gpt_imdb",)
HEAD8 = 'select-nodes{override=["node_linear_24{bits=8}"]}'
CHANNEL = "group=0,symmetric=true,scheme=static"


@dataclass(frozen=True)
class Method:
    """One way to make a file of few bits.

    Attributes:
        name: Of the row.
        kind: Its class: rows are compared inside of one.
        texts: Passes for transformers, between those that every pipeline begins and ends with;
            None where the method has nothing for them.
        images: The same for convolutional networks.
        models: The models that it is run on, in place of all.
    """

    name: str
    kind: str
    texts: str | None
    images: str | None = None
    models: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.kind} {self.name}"

    def pipeline(self, task: Task) -> str | None:
        """The whole pipeline for a model, None where there is none."""
        if self.models and task.name not in self.models:
            return None
        text = self.texts if task.metric in ("perplexity", "spearman") else self.images
        return None if text is None else f"{FRONT}{text}{BACK}"


METHODS = [
    # W4: blocks of 32 with zero points, activations in float; W4A8 for convolutions.
    Method("rounded", "W4", STORE4, RANGES + STATIC4),
    *(
        Method(
            f"rounded, {fit}",
            "W4",
            f"quantize-embeddings,quantize-weights{{symmetric=false,method={fit}}}",
        )
        for fit in ("mse", "lsq", "hqq")
    ),
    Method("gptq", "W4", f"gptq,{STORE4}", f"{RANGES}gptq{{{CHANNEL}}},{STATIC4}"),
    Method(
        "gptq, largest first",
        "W4",
        f"gptq{{order=activation}},{STORE4}",
        f"{RANGES}gptq{{{CHANNEL},order=activation}},{STATIC4}",
    ),
    Method(
        "gptq as published",
        "W4",
        f"gptq{{fit=minmax,sweeps=0,refits=0}},{STORE4}",
        f"{RANGES}gptq{{{CHANNEL},fit=minmax,sweeps=0,refits=0}},{STATIC4}",
    ),
    Method("gptaq", "W4", f"gptaq,{STORE4}", f"{RANGES}gptaq{{{CHANNEL}}},{STATIC4}"),
    Method(
        "gptaq, largest first",
        "W4",
        f"gptaq{{order=activation}},{STORE4}",
        f"{RANGES}gptaq{{{CHANNEL},order=activation}},{STATIC4}",
    ),
    Method(
        "auto", "W4", f"choose-method,{STORE4}", f"{RANGES}choose-method{{{CHANNEL}}},{STATIC4}"
    ),
    Method("gpfq", "W4", f"gpfq,{STORE4}", f"{RANGES}gpfq{{{CHANNEL}}},{STATIC4}"),
    Method(
        "learned rounding",
        "W4",
        "learn-rounding{bits=4,group=32,symmetric=false,steps=60,rows=96,batch=8,rate=0.015},"
        + STORE4,
        f"{RANGES}learn-rounding{{bits=4,steps=100}},{STATIC4}",
    ),
    Method(
        "AdaRound",
        "W4",
        "learn-rounding{bits=4,group=32,symmetric=false,steps=60,rows=96,batch=8,rate=0.02,"
        f"granularity=layer,freedom=neighbours,scales=false}},{STORE4}",
        f"{RANGES}learn-rounding{{bits=4,steps=100,rate=0.02,granularity=layer,"
        f"freedom=neighbours,scales=false}},{STATIC4}",
    ),
    Method("rotated, gptq", "W4", f"rotate{{online=true}},gptq,{STORE4}"),
    Method("rotated, rsq", "W4", f"rotate{{online=true}},rsq,{STORE4}"),
    Method("smoothed, gptq", "W4", f"smooth-activations,gptq,{STORE4}"),
    Method("awq, clipped", "W4", f"awq{{clip=true}},{STORE4}"),
    Method("awq, gptq", "W4", f"awq,gptq,{STORE4}"),
    # Blocks of 128.
    Method("rounded", "W4 128", STORE128, RANGES + BLOCKS32.replace("32", "128")),
    Method("gptq, largest first", "W4 128", f"gptq{{{ORDERED},group=128}},{STORE128}"),
    Method("gptaq, largest first", "W4 128", f"gptaq{{{ORDERED},group=128}},{STORE128}"),
    Method("auto", "W4 128", f"choose-method{{group=128}},{STORE128}"),
    Method("rounded", "W3 128", STORE3.replace("bits=3", "bits=3,group=128")),
    Method(
        "gptaq, largest first",
        "W3 128",
        f"gptaq{{bits=3,{ORDERED},group=128}}," + STORE3.replace("bits=3", "bits=3,group=128"),
    ),
    # Convolutions in blocks: a scale for so many weights of a channel.
    Method("rounded, blocks of 32", "W4", None, f"{RANGES}{BLOCKS32}"),
    # Four bits in the file, products of 8-bit floats: ONNX Runtime on CPUs is only their reference.
    Method("dpq", "W4F8", "quantize-embeddings,calibrate{method=minmax},dpq,quantize-fp8"),
    # W4A8: four bits in the file, the products in 8-bit kernels.
    Method("rounded", "W4A8", FOLD4),
    Method("gptq", "W4A8", f"gptq,{FOLD4}"),
    Method("gptaq, largest first", "W4A8", f"gptaq{{order=activation}},{FOLD4}"),
    Method("smoothed, rounded", "W4A8", f"smooth-activations,{FOLD4}"),
    Method("smoothed, gptq", "W4A8", f"smooth-activations,gptq,{FOLD4}"),
    Method("rotated, gptq", "W4A8", f"rotate{{online=true}},gptq,{FOLD4}"),
    # A scale a token; four bits of activations run in the same kernels.
    Method("rounded, tokens", "W4A8", f"{TOKENS}{{weights=4,group=32,symmetric=false}}"),
    Method("gptq, tokens", "W4A8", f"gptq,{TOKENS}"),
    Method("QQQ", "W4A8", f"smooth-outliers{{group=128}},gptq{{group=128}},{TOKENS}"),
    Method("QServe", "W4A8", f"smooth-attention,qoq{{group=32}},{TOKENS}"),
    Method("rounded", "W4A8KV4", f"{TOKENS}{{weights=4,group=32,symmetric=false,kv=4}}"),
    Method("QServe", "W4A8KV4", f"smooth-attention,qoq{{group=32}},{TOKENS}{{kv=4}}"),
    Method(
        "QServe, rotated",
        "W4A8KV4",
        f"rotate{{online=true}},smooth-attention,qoq{{group=32}},{TOKENS}{{kv=4}}",
    ),
    Method("rounded", "W4A4", f"{TOKENS}{{bits=4,weights=4,symmetric=false}}"),
    Method("rotated, gptq", "W4A4", f"rotate{{online=true}},gptq,{TOKENS}{{bits=4}}"),
    Method(
        "learned rotations, gptq",
        "W4A4",
        f"learn-rotations{{kv=0,keys=false}},gptq,{TOKENS}{{bits=4}}",
        models=("char", "char_outliers"),
    ),
    Method(
        "learned, blocks by entropy",
        "W4A4",
        "learn-rounding{bits=4,scheme=tokens,activations=4,granularity=entropy,span=2,steps=60,"
        f"rows=96,batch=8}},{TOKENS}{{bits=4}}",
    ),
    Method("qllm, gptq", "W4A4", f"qllm,gptq,{TOKENS}{{bits=4}}"),
    Method("smoothed, qllm, gptq", "W4A4", f"smooth-activations,qllm,gptq,{TOKENS}{{bits=4}}"),
    # Three and two bits.
    Method("rounded", "W3", STORE3),
    Method("gptq", "W3", f"gptq{{bits=3}},{STORE3}"),
    Method("gptaq", "W3", f"gptaq{{bits=3}},{STORE3}"),
    Method("gptaq, largest first", "W3", f"gptaq{{bits=3,order=activation}},{STORE3}"),
    Method("auto", "W3", f"choose-method{{bits=3}},{STORE3}"),
    Method("awq, clipped", "W3", f"awq{{bits=3,clip=true}},{STORE3}"),
    Method("awq, gptq", "W3", f"awq{{bits=3}},gptq{{bits=3}},{STORE3}"),
    Method("nupes", "W3", f"nupes{{bits=3}},{STORE3}"),
    Method("rounded", "W2", STORE2),
    Method("gptq", "W2", f"gptq{{bits=2,group=16}},{STORE2}"),
    Method("gptaq", "W2", f"gptaq{{bits=2,group=16}},{STORE2}"),
    Method(
        "gptaq, largest first",
        "W2",
        f"gptaq{{bits=2,group=16,order=activation}},{STORE2}",
    ),
    Method("auto", "W2", f"choose-method{{bits=2,group=16}},{STORE2}"),
    Method("jlcm", "W2", f"jlcm,{STORE2}"),
    # Mixed bits: the head of the decoder, a quarter of the weights, is worth more of them.
    *(
        Method(f"gptaq, {name}", "W4 mixed", f"{HEAD8},gptaq{{{options}}},{text}", models=DECODER)
        for name, options, text in (
            ("head in 8 bits", ORDERED, STORE4),
            ("head in 8 bits, blocks of 16", f"{ORDERED},group=16,fit=lsq", STORE4),
            ("head in 8 bits, table in 4", ORDERED, TABLE4),
        )
    ),
    Method(
        "gptq, largest first, table in 4 bits",
        "W4 mixed",
        f"gptq{{{ORDERED}}},{TABLE4}",
        models=("minilm_sts",),
    ),
    Method(
        "gptaq, head in 4 bits",
        "W3 mixed",
        f"{HEAD8.replace('8}', '4}')},gptaq{{bits=3,{ORDERED}}},{STORE3}",
        models=DECODER,
    ),
]
"""Every method, a line each."""
