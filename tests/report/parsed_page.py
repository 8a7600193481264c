"""A page as a browser reads it."""

import re
from html.parser import HTMLParser

SECTIONS = {"result", "curves", "confusions", "classes", "calibration", "run"}
SECTIONS |= {"most-confident-mistakes"}
MASK_SECTIONS = {"mask-health", "what-the-masks-attend-to"}
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """A page that is refused unless its tags are balanced and it needs no other file."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.words, self.pictures = [], [], [], 0
        assert text.startswith("<!DOCTYPE html>")
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attributes):
        assert tag not in ("link", "iframe", "i", "name", "b-class"), tag
        assert tag != "script" or not attributes
        for name, value in attributes:
            assert not name.startswith("on")
            if name == "src":
                assert value.startswith("data:image/png;base64,")
                self.pictures += 1
            elif name not in ("alt", "title"):
                assert "//" not in value, (name, value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        assert self.open[-1:] != ["style"] or "url(" not in data
        if self.open[-1:] == ["script"]:
            assert not re.search("fetch|import|http|Request|Socket|innerHTML|eval", data)
            return
        self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
