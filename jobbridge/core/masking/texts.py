"""Where secrets are in a text: behind names, in headers and addresses, and by the shapes that their issuers gave them.

What is looked through may be long and anybody's: each pattern is bounded to the left of what it anchors at, so that the
time grows with the length and not faster. Rather too much of a text is hidden than too little.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

MASK = "••••••"

#: Parts of names of what is secret whatever it looks like.
CREDENTIALS = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|credential|"
    r"(?:api|access|private|signing|encryption|account|shared|master|service|deploy|storage|webhook|ssh|hmac|gpg|pgp)"
    r"[-_ ]?key|connection[-_ ]?string)"
)
#: Parts of names of what texts also talk about ("Unexpected token: x").
TOKENS = r"(?:token|authori[sz]ation|cookie|csrf|xsrf|jwt|bearer|sess(?:ion)?[-_]?id)"
_WORDS = rf"(?:{CREDENTIALS}|{TOKENS})"
#: Whole names, or their ends.
_SHORT = r"(?<![a-z])(?:auth|dsn|cvv|cvc|t?otp|pass|pw)"

#: Behind "bearer", where a text talks about one.
_ABOUT_BEARERS = (
    r"tokens?|auth\w*|is|was|are|or|and|not|no|missing|type|scheme|header|realm|error|must|required|in|format|for|of|"
    r"access|credentials?|method|invalid|expired|has|with|prefix|the"
)
#: Names of errors, which a message stands behind.
_NO_ERROR = "".join(
    f"(?<!{each})" for each in ("error", "exception", "warning", "failed", "failure", "invalid")
)

#: The shapes of tokens, as those who issue them document them: JSON Web Tokens (RFC 7519), GitHub, GitLab, Slack,
#: Stripe, AWS, Google, SendGrid, npm, PyPI, OpenAI and Anthropic, HashiCorp Vault, DigitalOcean, Shopify, Telegram,
#: age, Docker, Hugging Face, Sentry, Linear, Supabase, RubyGems, Figma, Grafana, Notion, Postman, Tailscale, Atlassian,
#: Databricks, and our own. Each with the beginning that stays.
_ISSUED = (
    r"()eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}",
    r"(gh[opusr]_)\w{20,}",
    r"(github_pat_)\w{20,}",
    r"(gl(?:pat|dt|rt|cbt|ptt|ft|soat)-)[\w.-]{16,}",
    r"(xox[a-z]-|xapp-)[\w-]{10,}",
    r"(hooks\.slack\.com/(?:services|workflows)/)[\w/+-]{16,}",
    r"((?:sk|rk|pk)_(?:live|test)_)\w{10,}",
    r"(whsec_)[\w+/=]{16,}",
    r"((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{2})[A-Z2-7]{14}",
    r"(AIza)[\w-]{30,}",
    r"(ya29\.)[\w-]{20,}",
    r"(GOCSPX-)[\w-]{20,}",
    r"(SG\.)[\w-]{16,}\.[\w-]{16,}",
    r"(npm_)\w{30,}",
    r"(pypi-)AgE[\w-]{30,}",
    r"(sk-(?:proj-|ant-|svcacct-|admin-)?)[\w-]{20,}",
    r"(hv[sbr]\.)[\w-]{20,}",
    r"(do[opr]_v1_)\w{32,}",
    r"(shp(?:at|ca|pa|ss)_)\w{16,}",
    r"(\d{8,10}:AA)[\w-]{32,}",
    r"(AGE-SECRET-KEY-)\w{20,}",
    r"((?:dckr_[po]at|hf|sntry[su]|lin_api|sbp|rubygems|figd|glsa|ntn|PMAK|tskey-\w{1,20}|ATATT3x|dapi)[_-]?)[\w-]{24,}",
    r"(jbt_)[\w-]{20,}",
)

#: What a text is looked through for at once, since most have nothing of it.
_SUSPECT = re.compile(
    rf"{_WORDS}|{_SHORT}|://|bearer|basic |identified by|--user|\s-u\s|-----BEGIN|eyJ|gh[opusr]_|github_pat|"
    r"gl\w{2,4}-|xox|xapp|hooks\.slack|[srp]k_|whsec|A[KSBC]I?[ACI]A|AIza|ya29|GOCSPX|SG\.|npm_|pypi-|sk-|hv[sbr]\.|do[opr]_v1|"
    r"shp\w\w_|:AA|AGE-SECRET|jbt_|jb1:|[?&](?:sig|code|key)|x-(?:amz|goog)-|sshpass|mysql|dckr_|hf_|sntry|lin_api|sbp_|"
    r"rubygems_|figd_|glsa_|ntn_|PMAK|tskey|ATATT|dapi",
    re.IGNORECASE,
)

Replacement: TypeAlias = str | Callable[[re.Match[str]], str]


def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _looks_made(match: re.Match[str]) -> str:
    """Hide what stands behind the name of a token, unless it is a word."""
    told = match[2]
    is_word = len(told) < 20 and (len(told) < 6 or re.search(r"\d", told) is None)
    return match[0] if is_word else match[1] + MASK


def _looks_written(match: re.Match[str]) -> str:
    """Hide what stands behind a name in a pair or a sentence, unless it is a word."""
    told = match[2]
    is_word = len(told) < 6 or re.search(r"\d", told) is None
    return match[0] if is_word else match[1] + MASK


def _after_name(match: re.Match[str]) -> str:
    """Hide a value; its quotation mark stays."""
    return match[1] + (match[3] or "") + MASK


def _of_line(match: re.Match[str]) -> str:
    """Hide a whole line such as `db_password: correct horse`; what begins as a class does is an error's message."""
    name = match[2]
    is_class = re.search(r"[a-z][A-Z]", name) is not None and name[0].isupper()
    return match[0] if is_class else match[1] + MASK


_NAMED = rf"(?:[^\"'\n\\]{{0,40}}{_WORDS}[^\"'\n\\]{{0,40}}|(?:[\w-]{{0,30}}[-_])?{_SHORT})"
_IS = r"\s{0,3}(?:=>|:=|=(?!=))\s{0,3}"
_NOTHING = r"(?:None|null|nil|True|False|undefined)\b"
_STRING = r"(?:[bBrRuUfF]{0,2})(\\{0,3}[\"'])"

#: What is encrypted, and was not opened for whom it is shown to (`jobbridge.codec.sealing`).
ENCRYPTED = "(encrypted)"

#: What is within brackets that hold none.
_GROUP = r"[{\[(][^{}\[\]()\n]{0,4000}[}\])]?"

_IN_TEXT: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    (re.compile(r"\bjb1:[A-Za-z0-9_.-]{1,32}:[A-Za-z0-9+/]{28,}={0,2}"), ENCRYPTED),
    # A private key, also one that is cut, and one whose ends of lines are escaped.
    (
        _pattern(
            r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)(?:(?!-----)[\s\S])*(-----END [^-\n]{0,60}-----)?"
        ),
        rf"\1{MASK}\2",
    ),
    # scheme://user:password@host, and what is in the place of a user on the web
    (re.compile(r"(://[^:/@\s]*:)[^/\s\"'<>]*@"), rf"\1{MASK}@"),
    (_pattern(r"(\bhttps?://)[^:/@\s\"'<>]{8,}@"), rf"\1{MASK}@"),
    # Cookies: a header's to the end of its line, and as objects.
    (_pattern(r"(cookies?[\"']?\s{0,3}[:=]\s{0,3})[{\[<(][^\n]*"), rf"\1{MASK}"),
    (_pattern(r"(?<![\"'])(cookie\s{0,3}[:=]\s{0,3})(?=[^\n'=]{1,200}=)[^\n']*"), rf"\1{MASK}"),
    (_pattern(r"(<cookie\s)[^>\n]{0,4000}"), rf"\1{MASK}"),
    # "password": "…", as in JSON and in what Python writes of a dict; also where it is no text
    (
        _pattern(
            rf"((\\{{0,3}}[\"']){_NAMED}\2\s{{0,9}}(?::|=>)\s{{0,9}})"
            rf"(?:{_STRING}(?:(?!\3)(?:\\.|.))+|(?!{_NOTHING})(?:{_GROUP}|[^\s,;{{}}\[\]()\"'\\]+))"
        ),
        _after_name,
    ),
    # Authorization: scheme and value; some schemes have many parts
    (
        _pattern(
            r"(authori[sz]ation[\"']?\s{0,3}(?:=>|[:=])\s{0,9}[\"']?)"
            r"(?:(?:digest|aws4-\S{1,30}|hawk|oauth|mac|signature|scram-\S{1,20})[ \t][^\n']*|"
            r"[\w-]{1,20}[ \t]{1,9}[\w.~+/=-]+|[\w.~+/=-]+)"
        ),
        rf"\1{MASK}",
    ),
    # password='…', as in what Python writes of a call, in shells and in connection strings; auth=('ada', '…');
    # password=…, also in the query of an address
    (
        _pattern(
            rf"((?:{_WORDS}[\w-]{{0,40}}|{_SHORT})({_IS}))"
            rf"(?:{_STRING}(?:(?!\3)(?:\\.|.))+|(?!=|{_NOTHING})(?:[\w.]{{0,40}}{_GROUP}|[^\s&;,\"'\[\]{{}}\\]+))"
        ),
        _after_name,
    ),
    # PASSWORD '…', in SQL
    (
        _pattern(r"(\b(?:password|identified\s{1,3}by)\s{1,3}')(?:(?!')(?:\\.|.))+"),
        rf"\1{MASK}",
    ),
    # <password>…</password>, in XML; …password": "…", whose beginning was cut off; ["password", "…"], as headers are
    (
        _pattern(rf"(<[\w:.-]{{0,40}}{_WORDS}[\w:.-]{{0,40}}(?:\s[^<>]{{0,200}})?>)[^<]{{1,4000}}(?=</)"),
        rf"\1{MASK}",
    ),
    (
        _pattern(
            rf"({_WORDS}[\w-]{{0,40}}\\{{0,3}}[\"']\s{{0,3}}:\s{{0,3}}\\{{0,3}}([\"']))(?:(?!\2)(?:\\.|.))+"
        ),
        rf"\1{MASK}",
    ),
    (
        _pattern(
            rf"([\[(]\s{{0,3}}b?[\"'][\w -]{{0,40}}{_WORDS}[\w -]{{0,40}}[\"'],\s{{0,3}}b?[\"'])([^\"'\n]{{1,4000}})"
        ),
        _looks_written,
    ),
    # password%3D…, in what was escaped for an address
    (_pattern(rf"({_WORDS}[\w-]{{0,40}}(?:%3D|%3A|%22%3A%22|%22%3A%20%22))[^\s&%\"']+"), rf"\1{MASK}"),
    # "with password …", "password is …", and tables
    (
        _pattern(
            rf"({CREDENTIALS}(?:[ \t]{{0,3}}:|[ \t]{{1,9}}(?:is|was)|)[ \t]{{0,9}}(?<=[ \t:])[\"']?)([\w.~+/=%!@#^*-]+)"
        ),
        _looks_written,
    ),
    (_pattern(r"(\bsshpass\s{1,3}-p\s{0,3})\S+"), rf"\1{MASK}"),
    (_pattern(r"(\bmysql\w{0,10}(?:[ ](?!-p)\S{1,60}){0,9}[ ]-p)\S+"), rf"\1{MASK}"),
    (_pattern(r"(\b(?:password|identified\s{1,3}by)\s{1,3}\$\w{0,20}\$)[^$\n]+"), rf"\1{MASK}"),
    (_pattern(r"(\bidentified\s{1,3}by\s{1,3}[\"]?)(?!'|password\b|values?\b)[^\s\"';]+"), rf"\1{MASK}"),
    # What signs an address.
    (
        _pattern(
            r"((?:[?&](?:sig|signature|code|key)|\bx-(?:amz|goog)-(?:signature|credential|security-token))=)[^\s&;,\"']{6,}"
        ),
        rf"\1{MASK}",
    ),
    # --password …, curl's -u ada:…
    (
        _pattern(rf"((?<![\w-])--?(?:[a-z][\w-]{{0,30}})?{_WORDS}[\w-]{{0,20}}\s{{1,3}})(?!-)[^\s\"',;:)]+"),
        rf"\1{MASK}",
    ),
    (_pattern(r"((?:\s-u|--user)\s{0,3}[\"']?[^\s:\"']{0,100}:)[^\s\"']+"), rf"\1{MASK}"),
    # password: …, as in YAML and in headers
    (
        re.compile(
            rf"^([ \t]{{0,40}}(?:- )?([\w-]{{0,40}}(?i:{CREDENTIALS})[\w-]{{0,20}})(?i:{_NO_ERROR}):[ \t]+)[^\n]+",
            re.MULTILINE,
        ),
        _of_line,
    ),
    (
        _pattern(rf"((?:{CREDENTIALS}[\w-]{{0,20}}|[-_]pass){_NO_ERROR}:\s{{1,9}})(?!{_NOTHING})[^\s,;\"']+"),
        rf"\1{MASK}",
    ),
    (_pattern(rf"({TOKENS}[\w-]{{0,20}}{_NO_ERROR}:\s{{0,9}})([\w.~+/=%-]+)"), _looks_made),
    # What requests carry.
    (
        _pattern(
            rf"(\bbearer[\s:=]{{1,9}}[\"']?)(?!realm=|(?:{_ABOUT_BEARERS})(?![\w.~+/=-]))[\w.~+/=-]+|"
            r"(\bbasic\s{1,9})(?=[a-z+/]{0,60}[0-9=])[a-z0-9+/]{6,}={0,2}"
        ),
        lambda match: (match[1] or match[2]) + MASK,
    ),
    *((re.compile(rf"(?<![A-Za-z0-9]){shape}"), rf"\1{MASK}") for shape in _ISSUED),
)


def without_passwords(text: str | None) -> str:
    """Hide passwords, tokens and the like in a text."""
    text = text or ""
    if _SUSPECT.search(text) is None:
        return text
    for pattern, instead in _IN_TEXT:
        text = pattern.sub(instead, text)
    return text
