"""The errors that stop a run, with the exit status of each on the command line."""


class UserError(Exception):
    """An error that the user can correct: a wrong argument, missing or damaged data. One line says what to do; exit status 2."""


class TrainingError(Exception):
    """The training failed: the loss is NaN or infinite, or a device has ended. The message says where; exit status 1."""


class NotFiniteError(TrainingError):
    """The loss, or the output of a network, is NaN or infinite."""


class CommunicationError(TrainingError):
    """Communication between devices failed: one has ended, hangs, or calls a different collective."""
