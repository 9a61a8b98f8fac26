import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from io import BytesIO

import pytest
from pypdf import PdfReader

from jobbridge.errors import ConfigurationError
from jobbridge.handlers.invoicing import pdf
from jobbridge.handlers.invoicing.models import BillLine
from jobbridge.handlers.invoicing.pdf import render_invoice
from tests.books import invoice, time_entry
from tests.forked import run_python
from tests.support import REPOSITORY, clean_environment


def text_of(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)


def test_the_page_says_who_pays_whom_how_much_and_when() -> None:
    text = text_of(render_invoice(invoice()))

    for expected in (
        "Harbour IT Services Ltd",
        "Acme Ltd",
        "1 Main Street",
        "INV-00001",
        "31 October 2026",
        "30 November 2026",
        "1 to 31 October 2026",
        "Total EUR",
        "1,230.00",
        "VAT 23 % on 1,000.00",
        "IE29 AIBK 9311 5212 3456 78",
        "10:00 h",
    ):
        assert expected in text


def test_time_is_listed_on_a_page_of_its_own_and_pages_are_numbered() -> None:
    entries = [time_entry(15, note=f"Work {number}") for number in range(100)]

    content = render_invoice(invoice(entries=entries))

    reader = PdfReader(BytesIO(content))
    pages = [page.extract_text() for page in reader.pages]
    assert len(pages) == 4
    assert all(f"page {number} of 4" in page for number, page in enumerate(pages, start=1))
    assert "Work 0" not in pages[0]
    assert "Work 0" in pages[1]
    assert "Work 99" in pages[3]
    assert "25:00" in pages[3]  # the sum


def test_an_invoice_without_time_has_one_page() -> None:
    assert len(PdfReader(BytesIO(render_invoice(invoice(entries=[])))).pages) == 1


def test_names_are_printed_whatever_their_letters_and_signs() -> None:
    name = "Łódź & Šumava <Ελλάδα> Київ GmbH"

    text = text_of(render_invoice(invoice(bill_to=[name, "ulica Długa 1", "90-001 Łódź"], client_name=name)))

    assert name in text


def test_an_invoice_over_nothing_asks_for_nothing() -> None:
    nothing = invoice(subtotal=Decimal("0.00"), tax=Decimal("0.00"), total=Decimal("0.00"), status="paid")

    text = text_of(render_invoice(nothing))

    assert "Nothing is to be paid" in text
    assert "Please pay" not in text


def test_tax_of_zero_percent_is_named_without_a_rate() -> None:
    tax = invoice().taxes[0]
    exempt = type(tax)(
        tax_name="VAT reverse charge", tax_percent=Decimal("0.000"), taxable=tax.taxable, tax=Decimal("0.00")
    )

    assert "VAT reverse charge, on 1,000.00" in text_of(render_invoice(invoice(taxes=[exempt])))


def test_a_long_description_is_wrapped() -> None:
    line = invoice().lines[0]
    values = {name: getattr(line, name) for name in BillLine.__slots__} | {"description": "word " * 200}

    text = text_of(render_invoice(invoice(lines=[BillLine(**values)])))

    assert len(re.findall("word", text)) == 200


def test_the_bytes_depend_on_the_invoice_alone() -> None:
    script = (
        "import hashlib; from tests.books import invoice; "
        "from jobbridge.handlers.invoicing.pdf import render_invoice; "
        "print(hashlib.sha256(render_invoice(invoice())).hexdigest())"
    )
    environment = clean_environment({"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"})
    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    entry = {"entry_id": "other"}  # ids are not printed
    here = render_invoice(invoice(entries=[time_entry(600, **entry)], job_id="another job"))

    assert hashlib.sha256(here).hexdigest() == elsewhere
    assert b"2026" not in re.findall(rb"/CreationDate \((.*?)\)", here)[0]


def test_threads_render_the_same_bytes_at_once() -> None:
    expected = render_invoice(invoice())

    with ThreadPoolExecutor(4) as pool:
        rendered = list(pool.map(lambda _: render_invoice(invoice()), range(8)))

    assert set(rendered) == {expected}


def test_threads_of_a_process_that_has_rendered_nothing_yet_render_at_once() -> None:
    """What reportlab makes at its first use, it makes for all threads: another one finds it half made."""
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from jobbridge.handlers.invoicing.pdf import _reportlab, render_invoice
from tests.books import invoice, time_entry

_reportlab()
sys.setswitchinterval(1e-6)
together = Barrier(8)

def render(number):
    letters = "".join(map(chr, range(0x400 + number, 0x450)))
    return render_invoice(invoice(entries=[time_entry(15, note=letters)]))

def together_render(number):
    together.wait()
    return render(number)

with ThreadPoolExecutor(8) as threads:
    at_once = list(threads.map(together_render, range(24)))
assert at_once == [render(number) for number in range(24)]
"""
    for _ in range(3):
        ended = run_python(["-c", program], env=clean_environment(), cwd=REPOSITORY)
        assert ended.returncode == 0, ended.stderr


@pytest.fixture
def without_reportlab(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "reportlab"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "reportlab", None)
    pdf._reportlab.cache_clear()
    pdf._style.cache_clear()
    yield
    monkeypatch.undo()
    pdf._reportlab.cache_clear()
    pdf._style.cache_clear()


@pytest.mark.usefixtures("without_reportlab")
def test_without_its_extra_the_error_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match="reportlab") as caught:
        render_invoice(invoice())
    assert "pip install 'jobbridge[handlers]'" in caught.value.hint
