"""One model behind HTTP, with OpenAI's completions and chat.

questions.py    what a request asks for, or why it is refused
answers.py      the text that follows, piece by piece
worker.py       the one thread that calls the model, a step of one request after a step of another
shapes.py       answers as OpenAI writes them
app.py          the paths
server.py       the port, and how it ends

A request is bounded in what it reads and writes, and how many wait is bounded. Whoever goes away is forgotten after the
step that is under way. Nothing is loaded, stored or executed that a request names.
"""

from .app import application
from .questions import Limits, Served
from .server import bind, listen
from .worker import Worker

__all__ = ["Limits", "Served", "Worker", "application", "bind", "listen"]
