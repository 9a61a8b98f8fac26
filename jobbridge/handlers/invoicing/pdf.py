"""An invoice as PDF.

The bytes depend on the invoice alone: no clock, no tenant, no job, no locale, and reportlab's invariant mode in place
of its time stamps and random ids. So the same books give the same documents, whoever renders them and when, and a
document that is rendered twice is the same document.

The fonts are in the package: a client's name must not depend on what is installed on the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from jobbridge.errors import ConfigurationError
from jobbridge.handlers.invoicing.models import BillLine, BillTax, Invoice
from jobbridge.handlers.money import (
    amount_text,
    date_text,
    duration_text,
    percent_text,
    period_text,
    quantity_text,
    rate_text,
)
from jobbridge.handlers.providers import Provider

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]  # no stubs

MEDIA_TYPE = "application/pdf"

FONT, BOLD = "DejaVuSansCondensed", "DejaVuSansCondensed-Bold"
INK, ACCENT, FAINT, SHADE = "#1d2733", "#16506e", "#66717d", "#eef3f6"
MARGIN = 56.0  # points, left and right

#: One thread renders at a time. Reportlab keeps fonts, their subsets and its colours in globals, and a thread that
#: finds them half made fails ("Invalid color value 'black'", KeyError). Nothing is slower for it: it is all Python.
_turn = threading.Lock()


def render_invoice(invoice: Invoice) -> bytes:
    """Give the invoice as PDF: a page or more to pay by, and a list of the time that it bills.

    Raises:
        ConfigurationError: reportlab is not installed.
    """
    with _turn:
        return _rendered(invoice)


def _rendered(invoice: Invoice) -> bytes:
    reportlab = _reportlab()
    _register_fonts()
    buffer = BytesIO()
    document = reportlab.document(
        buffer,
        pagesize=reportlab.a4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=92,
        bottomMargin=78,
        title=f"Invoice {invoice.head.number}",
        author=invoice.provider.name,
        subject=f"{invoice.head.client_name}, {period_text(invoice.head.period.start, invoice.head.period.end)}",
        creator=invoice.provider.name,
        invariant=1,
    )
    frame = _page_frame(invoice, *reportlab.a4)
    document.build(list(_story(invoice)), canvasmaker=_numbered(reportlab.canvas, frame))
    return buffer.getvalue()


class _Reportlab:
    """The parts of reportlab that are used, imported when the first invoice is rendered: it is an extra."""

    def __init__(self) -> None:
        from reportlab import platypus  # type: ignore[import-untyped]  # no stubs
        from reportlab.lib import colors, pagesizes, styles  # type: ignore[import-untyped]  # no stubs
        from reportlab.pdfgen.canvas import Canvas

        self.a4: tuple[float, float] = pagesizes.A4
        self.canvas, self.document = Canvas, platypus.SimpleDocTemplate
        self.color, self.style = colors.HexColor, styles.ParagraphStyle
        self.keep, self.page_break, self.paragraph = (
            platypus.KeepTogether,
            platypus.PageBreak,
            platypus.Paragraph,
        )
        self.space, self.table = platypus.Spacer, platypus.Table


@cache
def _reportlab() -> _Reportlab:
    try:
        return _Reportlab()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "reportlab":
            raise
        raise ConfigurationError(
            "Invoices are rendered with reportlab, which is not installed.",
            hint="Install it with `pip install 'jobbridge[handlers]'` where the workers run.",
        ) from None


def _register_fonts() -> None:
    from reportlab.pdfbase import pdfmetrics  # type: ignore[import-untyped]  # no stubs
    from reportlab.pdfbase.ttfonts import TTFont  # type: ignore[import-untyped]  # no stubs

    for name in (FONT, BOLD):
        if name not in pdfmetrics.getRegisteredFontNames():
            file = resources.files("jobbridge.handlers") / "fonts" / f"{name}.ttf"
            pdfmetrics.registerFont(TTFont(name, BytesIO(file.read_bytes())))
    pdfmetrics.registerFontFamily(FONT, normal=FONT, bold=BOLD, italic=FONT, boldItalic=BOLD)


# -- what is printed


def _story(invoice: Invoice) -> Iterator[Any]:
    rl = _reportlab()
    yield _address_and_facts(invoice)
    yield rl.space(0, 22)
    yield _text(f"Invoice {invoice.head.number}", bold=True, size=15, color=ACCENT)
    yield rl.space(0, 12)
    yield _lines_table(invoice.lines)
    yield rl.space(0, 8)
    yield rl.keep([_totals_table(invoice), rl.space(0, 22), *_payment(invoice)])
    if invoice.entries:
        yield rl.page_break()
        yield from _time_list(invoice)


def _address_and_facts(invoice: Invoice) -> Any:
    head = invoice.head
    to = "<br/>".join([f"<b>{escape(head.bill_to[0])}</b>", *map(escape, head.bill_to[1:])])
    vat = f"<br/>VAT number {escape(head.client_vat_number)}" if head.client_vat_number else ""
    facts = [
        ("Number", head.number),
        ("Date", date_text(head.issued_on)),
        ("Billing period", period_text(invoice.head.period.start, invoice.head.period.end)),
        ("Due", date_text(head.due_on)),
    ]
    rows = [[_text(name, color=FAINT), _text(value, bold=name == "Number")] for name, value in facts]
    inner = _reportlab().table(
        rows, colWidths=[78, 145], style=[*_PLAIN, ("BOTTOMPADDING", (0, 0), (-1, -1), 3)]
    )
    bill_to = [_text("BILL TO", size=7, color=FAINT), _text(to + vat, markup=True)]
    return _reportlab().table([[bill_to, inner]], colWidths=[_width() - 223, 223], style=_PLAIN)


def _lines_table(lines: Sequence[BillLine]) -> Any:
    rows: list[list[Any]] = [
        [
            _heading("Description"),
            _heading("Quantity", right=True),
            _heading("Rate", right=True),
            _heading("VAT", right=True),
            _heading("Amount", right=True),
        ]
    ]
    for line in lines:
        cells = (_quantity(line), rate_text(line.rate), percent_text(line.tax_percent), amount_text(line.net))
        rows.append([_text(line.description), *(_text(cell, right=True) for cell in cells)])
    return _striped(rows, [_width() - 270, 84, 62, 46, 78])


def _totals_table(invoice: Invoice) -> Any:
    head = invoice.head
    rows = [[_text("Subtotal", right=True), _text(amount_text(head.subtotal), right=True)]]
    for tax in invoice.taxes:
        rows.append([_text(_tax_text(tax), right=True), _text(amount_text(tax.tax), right=True)])
    rows.append(
        [
            _text(f"Total {head.currency}", right=True, bold=True, size=11, color="#ffffff"),
            _text(amount_text(head.total), right=True, bold=True, size=11, color="#ffffff"),
        ]
    )
    color = _reportlab().color
    last = len(rows) - 1
    style = [
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
        ("TOPPADDING", (0, last), (-1, last), 6),
        ("BOTTOMPADDING", (0, last), (-1, last), 8),
        ("BACKGROUND", (0, last), (-1, last), color(ACCENT)),
    ]
    return _reportlab().table(rows, colWidths=[180, 90], hAlign="RIGHT", style=style)


def _payment(invoice: Invoice) -> list[Any]:
    head, provider = invoice.head, invoice.provider
    if not head.total:
        return [_text("Nothing is to be paid on this invoice.")]
    return [
        _text("PAYMENT", size=7, color=FAINT),
        _text(
            f"Please pay <b>{head.currency} {amount_text(head.total)}</b> by <b>{date_text(head.due_on)}</b>, "
            f"with the reference <b>{escape(head.number)}</b>.<br/>"
            f"IBAN {escape(provider.iban)} &nbsp;·&nbsp; BIC {escape(provider.bic)} &nbsp;·&nbsp; "
            f"{escape(provider.name)}",
            markup=True,
        ),
    ]


def _time_list(invoice: Invoice) -> Iterator[Any]:
    rl = _reportlab()
    yield _text("Time worked", bold=True, size=13, color=ACCENT)
    yield rl.space(0, 4)
    yield _text(
        "As recorded. On the invoice, each entry is rounded up as your contract says.", size=7.5, color=FAINT
    )
    yield rl.space(0, 8)
    rows: list[list[Any]] = [
        [
            _heading("Date"),
            _heading("Ticket"),
            _heading("Work"),
            _heading("Technician"),
            _heading("Time", right=True),
        ]
    ]
    for entry in invoice.entries:
        cells = (entry.work_date.isoformat(), entry.ticket, entry.note, entry.technician)
        rows.append(
            [*(_text(cell, size=7.5) for cell in cells), _text(duration_text(entry.minutes), True, size=7.5)]
        )
    total = sum(entry.minutes for entry in invoice.entries)
    rows.append(
        ["", "", "", _text("Total", bold=True, size=8), _text(duration_text(total), True, bold=True, size=8)]
    )
    yield _striped(rows, [58, 48, _width() - 248, 92, 50], padding=2.2)


# -- how it looks

_PLAIN = [
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 0),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
]


def _width() -> float:
    return _reportlab().a4[0] - 2 * MARGIN - 12  # a frame's own padding, 6 at each side


def _text(
    text: str,
    right: bool = False,
    *,
    bold: bool = False,
    size: float = 8.5,
    color: str = INK,
    markup: bool = False,
) -> Any:
    style = _style(BOLD if bold else FONT, size, color, right)
    return _reportlab().paragraph(text if markup else escape(text), style)


def _heading(text: str, *, right: bool = False) -> Any:
    return _text(text, right, bold=True, size=8, color=ACCENT)


@cache
def _style(font: str, size: float, color: str, right: bool) -> Any:
    rl = _reportlab()
    name = f"{font} {size} {color} {right}"
    alignment = 2 if right else 0  # reportlab.lib.enums: TA_RIGHT, TA_LEFT
    return rl.style(
        name,
        fontName=font,
        fontSize=size,
        leading=size * 1.38,
        textColor=rl.color(color),
        alignment=alignment,
    )


def _striped(rows: list[list[Any]], widths: list[float], *, padding: float = 4) -> Any:
    color = _reportlab().color
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), padding),
        ("BOTTOMPADDING", (0, 0), (-1, -1), padding + 1),
        ("LINEBELOW", (0, 0), (-1, 0), 1.2, color(ACCENT)),
        ("LINEBELOW", (0, -1), (-1, -1), 0.6, color(ACCENT)),
        ("ROWBACKGROUNDS", (0, 1), (-1, -1), [color("#ffffff"), color(SHADE)]),
    ]
    return _reportlab().table(rows, colWidths=widths, repeatRows=1, style=style)


def _quantity(line: BillLine) -> str:
    if line.minutes is not None:
        return f"{duration_text(line.minutes)} h"
    is_countable = line.quantity != 1 and not line.unit.isupper()  # 2 devices, 2 TB
    return f"{quantity_text(line.quantity)} {line.unit}{'s' if is_countable else ''}"


def _tax_text(tax: BillTax) -> str:
    if not tax.tax_percent:
        return f"{tax.tax_name}, on {amount_text(tax.taxable)}"
    return f"{tax.tax_name} {percent_text(tax.tax_percent)} on {amount_text(tax.taxable)}"


# -- what is on every page

Frame = Callable[["Canvas", int, int], None]


def _page_frame(invoice: Invoice, width: float, height: float) -> Frame:
    color, provider = _reportlab().color, invoice.provider

    def draw(canvas: Canvas, page: int, pages: int) -> None:
        canvas.setFillColor(color(ACCENT))
        canvas.rect(0, height - 10, width, 10, stroke=0, fill=1)
        canvas.setFont(BOLD, 15)
        canvas.drawString(MARGIN + 6, height - 52, provider.name)
        canvas.setFillColor(color(FAINT))
        canvas.setFont(FONT, 8)
        canvas.drawRightString(width - MARGIN - 6, height - 44, f"{provider.street}, {provider.city}")
        canvas.drawRightString(width - MARGIN - 6, height - 55, f"{provider.phone}  ·  {provider.email}")
        _draw_footer(canvas, provider, width, f"Invoice {invoice.head.number}  ·  page {page} of {pages}")

    return draw


def _draw_footer(canvas: Canvas, provider: Provider, width: float, page: str) -> None:
    color = _reportlab().color
    canvas.setStrokeColor(color(ACCENT))
    canvas.setLineWidth(0.6)
    canvas.line(MARGIN + 6, 52, width - MARGIN - 6, 52)
    canvas.setFillColor(color(FAINT))
    canvas.setFont(FONT, 7)
    address = f"{provider.street}, {provider.city} {provider.postal_code}, {provider.country}"
    canvas.drawString(MARGIN + 6, 41, f"{provider.name}  ·  {address}")
    canvas.drawString(MARGIN + 6, 31, f"VAT number {provider.vat_number}  ·  IBAN {provider.iban}")
    canvas.drawRightString(width - MARGIN - 6, 41, page)


def _numbered(base: type[Canvas], frame: Frame) -> type[Canvas]:
    """Give a canvas that draws the frame when all pages are there: `page 1 of 3` needs the 3."""

    class NumberedCanvas(base):  # type: ignore[misc]  # a class that is imported late
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802  # reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                frame(self, number, len(self._pages))
                super().showPage()
            super().save()

    return NumberedCanvas
