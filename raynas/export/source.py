"""A network as the text of a stand-alone module: torch layers with explicit arguments, and a ``forward`` to read.

The network is traced symbolically (torch.fx), so its ``forward`` may hold any Python as long as the path through it
does not depend on the values or shapes of tensors. Modules that are not torch's own dissolve into what they do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from raynas.exceptions import CodegenError
from raynas.export.failures import explanation, open_length
from raynas.export.fx_printer import text_literal, value_text, write_forward
from raynas.export.traced import traced_graph

__all__ = ["CodegenError", "source_of", "with_code"]

# Modules of others that do nothing in eval mode and hide it from the tracer.
_IDLE = {"torchvision.ops.stochastic_depth.StochasticDepth"}

_TEMPLATE = '''"""{title}: a plain PyTorch network, written by RayNAS. Needs torch and safetensors, nothing else.
{note}
    from model import load
    network = load()  # weights from model.safetensors beside this file, in eval mode
"""

{imports}from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Group(nn.Module):
    """Layers, parameters and buffers under their names: ``group.conv``, or ``group[0]``, as in nn.Sequential."""

    def __init__(self, members):
        super().__init__()
        for name, member in members.items():
            if isinstance(member, nn.Module):
                self.add_module(name, member)
            elif isinstance(member, nn.Parameter):
                self.register_parameter(name, member)
            else:
                self.register_buffer(name, member)

    def __getitem__(self, name):
        return getattr(self, str(name))


class Network(Group):
    def __init__(self):
        super().__init__({members})

    def forward(self{inputs}):
{body}


def load(path=Path(__file__).with_name("model.safetensors")):
    """The network with its weights, in eval mode on the CPU."""
    network = Network()
    network.load_state_dict(load_file(path), assign=True)
    return network.eval()
'''


def with_code(text: str, code: str) -> str:
    """The text of :func:`source_of` with further statements, which stand before its last function."""
    if not code:
        return text
    lines = code.strip().split("\n")
    imports = [line for line in lines if line.startswith("import ")]
    rest = "\n".join(line for line in lines if not line.startswith("import ")).strip()
    head, _, tail = text.rpartition("\n\ndef load(")
    if imports:
        head = head.replace("from pathlib import Path\n", "\n".join([*imports, "from pathlib import Path\n"]), 1)
    return f"{head}\n\n{rest}\n\n\ndef load({tail}"


def source_of(network: nn.Module, inputs: int, example: tuple[Tensor, ...] = ()) -> tuple[str, dict[str, Tensor]]:
    """Write a network as Python code.

    Args:
        network: In eval mode; not changed, except that tensors made in its ``forward`` become attributes of it.
        inputs: How many positional tensors its ``forward`` is called with; other arguments keep their defaults.
        example: Such tensors, with a batch of at least 2: a network that cannot be traced symbolically is written in
            the operators to which its ``forward`` comes down for inputs of these shapes.

    Returns:
        The text of a module with a class ``Network`` and a function ``load``, and the state dict that it loads. The
        names in it are those of ``network``'s own state dict, without what ``forward`` does not use.

    Raises:
        CodegenError: The forward cannot be traced, or calls something that torch does not have.
    """
    title = name if (name := type(network).__name__).isidentifier() else "Network"
    try:
        return _written(network, *_symbolic(network, inputs), title)
    except CodegenError as reason:
        if not example:
            raise
        try:
            traced = traced_graph(network, example)
        except CodegenError:
            raise reason from None
        return _written(traced, traced.graph, {}, title, _OPERATORS)


def _symbolic(network: nn.Module, inputs: int) -> tuple[fx.Graph, dict[nn.Module, str]]:
    """The graph of a network by symbolic tracing, and the constructors of its layers."""
    tracer = _Tracer(network, inputs)
    try:
        with open_length(network):
            return tracer.trace(network), tracer.constructors
    except Exception as error:  # whatever the user's forward raises when it is called with stand-ins for tensors
        raise CodegenError(f"forward cannot be traced symbolically: {explanation(error, network)}") from error


def _written(
    network: nn.Module, graph: fx.Graph, constructors: Mapping[nn.Module, str], title: str, note: str = ""
) -> tuple[str, dict[str, Tensor]]:
    """The text of a module for a graph, and its state dict."""
    members: dict[str, Any] = {}
    state: dict[str, Tensor] = {}
    for node in graph.nodes:
        path = str(node.target)
        if node.op == "call_module":
            layer = network.get_submodule(path)
            _put(members, path, constructors[layer])
            state |= {f"{path}.{name}": value for name, value in layer.state_dict().items()}
        elif node.op == "get_attr":
            state[path] = _attribute(network, path)
            _put(members, path, _tensor_constructor(state[path]))
    names, body = write_forward(graph, "        ")
    text = _TEMPLATE.format(
        title=title,
        note=note,
        imports="".join(f"import {name}\n" for name in ("math", "operator") if f" {name}." in body),
        members=_nested(members, 2),
        inputs="".join(f", {name}" for name in names),
        body=body,
    )
    # A tensor that stands under two names would be refused by safetensors: each name gets its own copy.
    return text, {name: value.detach().clone().contiguous() for name, value in state.items()}


class _Tracer(fx.Tracer):
    """Traces down to the torch layers that can be written as a constructor call, and sequences of them."""

    def __init__(self, network: nn.Module, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        # Read before the tracing: while it runs, looking at a parameter leaves a trace.
        found = {module: _constructor(module) for module in network.modules() if module is not network}
        self.constructors = {module: text for module, text in found.items() if text is not None}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.constructors

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        # As many stand-ins as there are inputs: the arguments beyond them are to keep their defaults.
        own = [p for p in list(inspect.signature(root_fn).parameters.values())[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
        names = [own[i].name if i < len(own) else f"input{i}" for i in range(self.inputs)]
        return root_fn, [self.root, *(self.create_proxy("placeholder", name, (), {}) for name in names)]


_OPERATORS = """Its forward looks at the shapes of tensors: it is written in the operators of torch to which it comes
down for inputs of the shapes of training, in batches of any size.
"""


def _constructor(layer: nn.Module) -> str | None:
    """The call that builds a layer like this one, or None where it cannot be read off its attributes."""
    kind = type(layer)
    if isinstance(layer, nn.Sequential) and kind.forward is nn.Sequential.forward:
        return _sequence(layer)
    if f"{kind.__module__}.{kind.__qualname__}" in _IDLE:
        return "nn.Identity()"
    if getattr(nn, kind.__name__, None) is not kind:
        return None
    parameters = _parameters(kind)
    if isinstance(layer, nn.TransformerEncoderLayer):
        found = _encoder_arguments(layer)
    else:
        found = _arguments(layer, parameters)
    for arguments in ({name: _collapsed(value) for name, value in found.items()}, found):
        given = {name: value for name, value in arguments.items() if value != parameters[name].default}
        try:
            with torch.device("meta"):
                twin = kind(**given).train(layer.training)
            if repr(twin) == repr(layer) and _shapes(twin) == _shapes(layer):
                return f"nn.{kind.__name__}({_call_text(given, parameters)})"
        except (TypeError, ValueError, RuntimeError):  # CodegenError among them: a value without a literal form
            continue
    return None


def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The parameters of the constructor of a layer."""
    found = dict(list(inspect.signature(kind.__init__).parameters.items())[1:])
    if issubclass(kind, nn.RNNBase) and kind is not nn.RNNBase:  # theirs are *args and **kwargs
        found = dict(list(inspect.signature(nn.RNNBase.__init__).parameters.items())[2:])
        if kind is not nn.LSTM:
            del found["proj_size"]
        if kind is nn.RNN:
            found["nonlinearity"] = inspect.Parameter("nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh")
    return found


def _encoder_arguments(layer: nn.TransformerEncoderLayer) -> dict[str, Any]:
    """The arguments of a layer that keeps them in its parts alone."""
    activation = {F.relu: "relu", F.gelu: "gelu"}.get(layer.activation, layer.activation)
    return {
        "d_model": layer.self_attn.embed_dim,
        "nhead": layer.self_attn.num_heads,
        "dim_feedforward": layer.linear1.out_features,
        "dropout": layer.dropout.p,
        "activation": activation,
        "layer_norm_eps": layer.norm1.eps,
        "batch_first": layer.self_attn.batch_first,
        "norm_first": layer.norm_first,
        "bias": layer.linear1.bias is not None,
    }


def _sequence(layers: nn.Sequential) -> str | None:
    texts = [_constructor(layer) for layer in layers]
    if not texts or None in texts or list(layers._modules) != [str(i) for i in range(len(layers))]:
        return None
    inner = "".join(f"\n{text},".replace("\n", "\n    ") for text in texts)
    return f"nn.Sequential({inner}\n)"


def _arguments(layer: nn.Module, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The constructor's arguments as far as the layer keeps them as attributes, which torch's layers mostly do."""
    result = {}
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and name not in ("device", "dtype") and not name.startswith("_") and hasattr(layer, name):
            value = getattr(layer, name)
            if isinstance(parameter.default, bool) and not isinstance(value, bool):
                value = value is not None  # bias=True is kept as the parameter itself, bias=False as None
            result[name] = value
    return result


def _shapes(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in layer.state_dict().items()}


def _collapsed(value: Any) -> Any:
    """(3, 3) as 3, which most of torch's layers take to be the same."""
    same = isinstance(value, tuple) and len(value) > 1 and len(set(value)) == 1
    return value[0] if same else value


def _call_text(arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> str:
    required = [name for name in arguments if parameters[name].default is inspect.Parameter.empty]
    named = [f"{name}={value_text(arguments[name], {})}" for name in arguments if name not in required]
    return ", ".join([value_text(arguments[name], {}) for name in required] + named)


def _attribute(network: nn.Module, path: str) -> Tensor:
    value: Any = network
    for part in path.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise CodegenError(f"forward uses {path!r}, a {type(value).__name__} that is no tensor")
    return value


def _tensor_constructor(value: Tensor) -> str:
    text = f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
    if not isinstance(value, nn.Parameter):
        return text
    return f"nn.Parameter({text})" if value.requires_grad else f"nn.Parameter({text}, requires_grad=False)"


def _put(members: dict[str, Any], path: str, text: str) -> None:
    """Enter a member into the tree of groups, unless it comes with a layer that is there as a whole."""
    *above, last = path.split(".")
    for part in above:
        members = members.setdefault(part, {})
        if isinstance(members, str):
            return
    members[last] = text


def _nested(members: Mapping[str, Any], depth: int) -> str:
    """The tree of groups as nested dict literals, ``depth`` levels of indentation deep."""
    inner = "    " * (depth + 1)
    lines = []
    for name, value in members.items():
        text = value.replace("\n", f"\n{inner}") if isinstance(value, str) else f"Group({_nested(value, depth + 1)})"
        lines.append(f"{inner}{text_literal(name)}: {text},\n")
    return f"{{\n{''.join(lines)}{inner[4:]}}}"
