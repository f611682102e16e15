"""The errors a user can meet. Every message names the cause and the next step."""


class Sim2RealError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(Sim2RealError):
    """A configuration file or override is wrong."""


class SpecError(Sim2RealError):
    """A signal, term or command does not match the policy's contract."""


class BundleError(Sim2RealError):
    """A policy bundle is incomplete, altered or not what it says it is."""


class SimulationError(Sim2RealError):
    """The simulator was asked for something it cannot do, or produced something impossible."""


class CollectionError(Sim2RealError):
    """Images cannot be collected: a topic is missing, stamps make no sense, or nothing fits together."""


class AdaptationError(Sim2RealError):
    """Images cannot be adapted to each other, a training went wrong, or a generator does harm."""
