"""The style of the report: one sheet, no fonts and no pictures from elsewhere; light, dark, print.

Tables of results become lists on a narrow screen. In a timeline the threads then share a column:
of each row only the cell of the thread that acts is shown, with its name before what it does.
"""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1a1c20;--soft:#565c66;--rule:#d5d9e0;--card:#f4f6f9;
--bad:#a3121f;--badbg:#fdecee;--ok:#0b5f2c;--dev:#8a4b00;--devbg:#fff5e3;--link:#0b4fa8;
--wave:#0b4fa8;--fill:#dbe8fb;
--on0:#e4ecf9;--on1:#dff2ea;--on2:#efe6f8;--on3:#e9ebef;--edge1:#12795a;--edge2:#7a3fb0;
--edge3:#5c6573}
@media(prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e6e9ee;--soft:#a3abb8;--rule:#363c47;
--card:#1d2229;--bad:#ff8a93;--badbg:#3d1b20;--ok:#6fd495;--dev:#f3b562;--devbg:#33270f;
--link:#86b7ff;--wave:#7fb2ff;--fill:#1f3555;
--on0:#1f2c42;--on1:#17342b;--on2:#2f2440;--on3:#2a2e36;--edge1:#58c9a0;--edge2:#c39bf0;
--edge3:#9aa3b2}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;margin:0 auto;
max-width:80rem;padding:1.5rem 1.25rem 4rem;color:var(--fg);background:var(--bg)}
h1{font-size:1.75rem;line-height:1.2;margin:0}
h2{font-size:1.3rem;line-height:1.3;margin:3rem 0 .75rem}
h3{font-size:1.1rem;line-height:1.3;margin:0 0 .5rem;overflow-wrap:anywhere}
p{margin:.5rem 0;max-width:46rem}
a{color:var(--link)}
.soft{color:var(--soft)}
.bad{color:var(--bad)}.ok{color:var(--ok)}
b.bad,b.ok{font-weight:600}
code,.steps{font-family:ui-monospace,SFMono-Regular,Consolas,"DejaVu Sans Mono",monospace}
code{font-size:.875em;overflow-wrap:anywhere}
dl.sum{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.4rem,1fr));gap:.75rem;
margin:1.25rem 0}
dl.sum div{background:var(--card);border-radius:.4rem;padding:.6rem .8rem}
dl.sum dt,dl.fact dt{color:var(--soft);font-size:.85rem}
dl.sum dd{margin:0;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums}
dl.fact{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.25rem;margin:.75rem 0}
dl.fact dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
caption{text-align:left;color:var(--soft);font-size:.85rem;padding:.25rem 0}
.list th,.list td{text-align:left;vertical-align:top;padding:.35rem .6rem;
border-bottom:1px solid var(--rule);overflow-wrap:break-word}
.list thead th{font-size:.85rem;color:var(--soft);font-weight:600;vertical-align:bottom;
white-space:nowrap}
.list tbody th{font-weight:600}
@media(min-width:64rem){.list tbody th{white-space:nowrap}.list td[data-l^=what]{min-width:15rem}
.list td[data-l=result]{min-width:17rem}.list td[data-l=commit]{overflow-wrap:anywhere;
min-width:8.75rem}}
.list .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
section.v{border-top:1px solid var(--rule);padding-top:1.5rem;margin-top:2rem}
.token{display:block;background:var(--card);border-radius:.4rem;padding:.5rem .8rem;
user-select:all}
summary{cursor:pointer;color:var(--link);padding:.35rem 0}
.legend dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:.3rem 1.5rem}
.legend dt{font-weight:600}.legend dd{margin:0;color:var(--soft)}
figure{margin:1rem 0}
figcaption{font-weight:600}
.steps{table-layout:fixed;font-size:.8125rem;line-height:1.3}
.steps caption{font-family:system-ui,sans-serif}
.cn{width:3.6em}.cu{width:4.2em}.cw{width:2.5em}.cc{width:2.8em}.cp{width:5em}
.steps th,.steps td{padding:.16rem .3rem;text-align:left;vertical-align:top;font-weight:400}
.steps thead th{color:var(--soft);vertical-align:bottom;border-bottom:1px solid var(--rule);
background:var(--bg)}
.steps th.v{font-weight:600;color:var(--fg);border-bottom:0}
.steps .b{border-left:1px solid var(--rule)}
.steps th.w{padding:.16rem 0}
.steps th.w span{writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap;
display:block;margin:0 auto 0 .45em;text-align:left}
.steps th.t{font-weight:600;color:var(--fg);overflow-wrap:anywhere}
.steps .n,.steps .u{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;
color:var(--soft)}
.steps tbody td.t{border-left:1px solid var(--rule);overflow-wrap:break-word}
.steps tbody td.on{background:var(--on0);border-left:3px solid var(--wave)}
.steps tbody td.on:nth-child(4n){background:var(--on1);border-left-color:var(--edge1)}
.steps tbody td.on:nth-child(4n+1){background:var(--on2);border-left-color:var(--edge2)}
.steps tbody td.on:nth-child(4n+2){background:var(--on3);border-left-color:var(--edge3)}
.steps .c{white-space:nowrap}
.steps .same{color:var(--soft)}
.steps .l,.steps .h,.steps .r,.steps .f{position:relative;color:transparent;overflow:hidden}
.l::before,.h::before,.r::before,.f::before{content:"";position:absolute;top:0;bottom:-1px;
left:.5em;right:.6em;border:0 solid var(--wave)}
.l::before{border-left-width:2px}
.h::before{border-right-width:2px;background:var(--fill)}
.r::before{border-right-width:2px;border-top-width:2px;background:var(--fill)}
.f::before{border-left-width:2px;border-top-width:2px}
.steps tbody tr.dev>:nth-child(n){background:var(--devbg)}
.steps tr.dev .n{color:var(--dev);font-weight:700}
.steps tr.later>*{border-top:1px dashed var(--soft)}
.steps tbody tr.bad>:nth-child(n){background:var(--badbg)}
.steps tr.bad .n,.steps tr.bad .on{color:var(--bad);font-weight:700}
.steps tbody tr.bad .on:nth-child(n){border-left-color:var(--bad)}
@media(max-width:40rem){
body{padding:1rem .5rem 3rem}
dl.sum{grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));gap:.5rem}
dl.fact{grid-template-columns:1fr;gap:0}
dl.fact dd{margin-bottom:.4rem}
.list thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
.list tr{display:block;border-bottom:1px solid var(--rule);padding:.5rem 0}
.list tbody th{display:block;border:0;padding:0 0 .2rem;white-space:normal}
.list td{overflow-wrap:anywhere}
.list td,.list .n{display:grid;grid-template-columns:7rem 1fr;gap:.75rem;border:0;
padding:.05rem 0;text-align:left;white-space:normal}
.list td::before{content:attr(data-l);color:var(--soft);font-size:.85rem}
.list td:empty{display:none}
.scroll{overflow-x:auto}
.steps{table-layout:auto;font-size:.75rem}
.steps th,.steps td{padding-left:.15rem;padding-right:.15rem}
.steps colgroup,.steps .u,.steps .t{display:none}
.steps td.on{display:table-cell;width:100%;min-width:4.6em;overflow-wrap:anywhere}
.steps td.on::before{content:attr(data-t) ": ";color:var(--soft)}
.steps th.u+th.t{display:table-cell}
.steps th.u+th.t span{display:none}
.steps th.u+th.t::before{content:"thread"}
.steps th.w,.steps .l,.steps .h,.steps .r,.steps .f,.steps .x{min-width:.95em;padding:0}
.l::before,.h::before,.r::before,.f::before{left:.25em;right:.25em}
.steps .c{padding-left:.2em;padding-right:.1em}
.steps .p{font-size:.65rem}
.steps .n{padding-left:0}
.steps th.w span{margin-left:0}
}
@media print{
body{max-width:none;padding:0;font-size:10pt}
.steps{font-size:7.5pt}
section.v{break-before:page}
tr{break-inside:avoid}
details::details-content{content-visibility:visible;block-size:auto}
.steps *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
