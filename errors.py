"""The two failures a user is told about in one sentence; every other exception is our bug and keeps its traceback."""


class UserError(Exception):
    """Something the user can put right.

    `message` names what is wrong and where (file, row or flag); `hint` is the way out.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class GateFailed(Exception):
    """A check ran to its end and did not confirm; its report is already written (exit code 1)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
