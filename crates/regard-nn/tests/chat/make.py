"""Writes the fixtures beside it: what transformers makes of our templates.

python3 make.py        # needs transformers and jinja2, as ../transformers/requirements.txt pins them
"""

import datetime
import json
from pathlib import Path
from unittest import mock

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
NOW = datetime.datetime(2031, 3, 9, 15, 4, 5)

CHATML = """\
{%- if messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nAnswer briefly.<|im_end|>\\n' }}
{%- endif %}
{%- for turn in messages %}
    {%- if turn.role == 'system' and loop.first %}
        {%- continue %}
    {%- endif %}
    {{- '<|im_start|>' ~ turn['role'] ~ '\\n' ~ turn['content'] ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

INST = """\
{% if messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{% set system = '<<SYS>>\\n' + messages[0]['content'].strip() + '\\n<</SYS>>\\n\\n' %}
{% else %}
{% set rest = messages %}
{% set system = '' %}
{% endif %}
{% for turn in rest %}
{% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('turns are user, assistant, user, assistant, and turn ' ~ loop.index ~ ' is ' ~ turn.role) }}
{% endif %}
{% if turn.role == 'user' %}
{{- bos_token + '[INST] ' + (system if loop.first else '') + turn.content.strip() + ' [/INST]' -}}
{% else %}
{%- generation -%}{{ ' ' + turn.content.strip() + ' ' + eos_token }}{%- endgeneration -%}
{% endif %}
{% endfor %}
"""

HEADERS = """\
{{- bos_token }}
{%- macro header(role) -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro %}
{%- if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{%- for turn in messages %}
{{- header(turn.role) + turn.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ header('assistant') }}{% endif -%}
"""

TURNS = """\
{{ bos_token }}
{%- set first = '' %}
{%- if messages[0].role == 'system' %}
    {%- set first = messages[0].content ~ '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for turn in messages %}
    {%- if (turn.role == 'assistant') == (loop.index is odd) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- set name = 'model' if turn.role == 'assistant' else turn.role %}
    {{- '<start_of_turn>' + name + '\\n' + (first if loop.first else '') + turn.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{{- '<start_of_turn>model\\n' if add_generation_prompt }}
"""

BARS = """\
{% for turn in messages %}
  {% if turn.role in ['system', 'user', 'assistant'] and turn.content %}
<|{{ turn.role }}|>
{{ turn.content }}<|end|>
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{% else %}
{{ eos_token }}
{%+ endif %}
"""

CHANNELS = """\
{#- The date, the last turn of each role, and what is thought apart from what is said. #}
{%- set seen = namespace(count=0, last=none, names=[]) %}
{{- '<|start|>system<|message|>Today is ' + strftime_now('%Y-%m-%d') + ', ' + strftime_now("%A %-d %B, %I:%M %p") + '.<|end|>' }}
{%- for turn in messages if turn.content is string %}
    {%- set seen.count = seen.count + 1 %}
    {%- set seen.last = turn %}
    {%- if turn.role not in seen.names %}{% set seen.names = seen.names + [turn.role] %}{% endif %}
    {%- set parts = turn.content.split('</think>') %}
    {%- if parts | length > 1 %}
        {{- '<|start|>' + turn.role + '<|channel|>analysis<|message|>' + parts[0].replace('<think>', '').strip() + '<|end|>' }}
    {%- endif %}
    {{- '<|start|>' + turn.role + '<|channel|>final<|message|>' + parts[-1].lstrip('\\n') + '<|end|>' }}
    {%- if seen.count >= 4 %}{% break %}{% endif %}
{%- endfor %}
{{- '|'.join(seen.names) }} {{ seen.last | tojson }} {{ seen.count / 2 }} {{ none }} {{ true }} {{ seen.names }}
{%- for key, value in {'b': 1, 'a': [1.5, 'x<&>"\\'é']}.items() %}
{{ key.upper() }}={{ value | tojson(indent=2) }}, {{ value | tojson(ensure_ascii=true, separators=(',', ':')) }}
{%- endfor %}
{{ '%s has %d' | format('it', 3) }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{- messages | map(attribute='role') | join(', ') }} {{ missing }}{{ missing is defined }} {{ messages[::-1][0].role }}
{%- filter upper %} done {% endfilter %}
"""

ASK = [dict(role="user", content="What is a fox?")]
TALK = [
    dict(role="system", content=" You are a fox.\n"),
    dict(role="user", content="  Who are you?\n"),
    dict(role="assistant", content="<think>\nA riddle.\n</think>\n\nA fox.  "),
    dict(role="user", content="Naïve “quotes” <b>&amp;</b> 🦊 {{ 1 + 1 }}"),
]
TWICE = [dict(role="user", content="a"), dict(role="user", content="b")]

TEMPLATES = dict(chatml=CHATML, inst=INST, headers=HEADERS, turns=TURNS, bars=BARS, channels=CHANNELS)
SPECIAL = dict(bos_token="<s>", eos_token="</s>")


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def case(tokenizer, messages, prompt):
    given = dict(messages=messages, add_generation_prompt=prompt)
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False)
        return dict(given, expected=text)
    except Exception as refusal:
        return dict(given, refused=str(refusal))


DIRECTIVES = "%Y %y %m %d %e %j %B %b %h %A %a %H %I %M %S %p %F %D %T %% %-d %-m %-H %-I %-M %-S %-j"
TIMES = [0, 951782400, 951868799, 1735689600, 1735646400, 4107542400, 4102444799, 1969660805, 1709164800 + 43200, 2**33]


def clock():
    for seconds in TIMES:
        time = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
        yield dict(seconds=seconds, expected=time.strftime(DIRECTIVES))


def main():
    (HERE / "clock.json").write_text(json.dumps(dict(format=DIRECTIVES, times=list(clock())), indent=1) + "\n")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, unk_token="x")), **SPECIAL)
    with mock.patch("transformers.utils.chat_template_utils.datetime", Clock):
        for name, template in TEMPLATES.items():
            tokenizer.chat_template = template
            cases = [case(tokenizer, messages, prompt) for messages in (ASK, TALK, TWICE) for prompt in (True, False)]
            fixture = dict(template=template, special=SPECIAL, now=int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp()), cases=cases)
            (HERE / f"{name}.json").write_text(json.dumps(fixture, indent=1, ensure_ascii=False) + "\n")


main()
