"""Lines that frame a text and are no part of it: what novel sites and web pages put around it.

A pattern names a whole line (white space at its sides aside), so that a sentence that speaks of a bookmark stays.
Adding one is one line here and one in the test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fangcun.corpus.documents import CHAPTER_PATTERN

NOVEL = (
    # marks of the site
    r"更新时间[:：].{0,60}",
    r"本章字数[:：]\s*\d+",
    r"[-=*\s]{2,}.{0,6}(?:章节|正文|本书)(?:内容)?(?:开始|结束|完结?)?.{0,4}[-=*\s]{2,}",
    r"[\[【]?[^。！？，]{1,24}/[^。！？，]{1,16}著\s*[\]】]?",
    # advertisements
    r"(?:本?作品|本书|本站).{0,40}(?:仅供.{0,8}(?:预览|交流|学习)|24小时内删除|不得用作商业).{0,120}",
    r".{0,60}(?:购买.{0,6}正版|支持.{0,4}正版).{0,40}",
    r".{0,30}(?:请|欢迎|记得|敬请)(?:广大书友|您|大家)?.{0,8}(?:收藏|记住|光临)(?:一下)?(?:本站|本书|网址|域名|我们).{0,60}",
    r"(?:手机|电脑)?(?:用户|站|版)?.{0,6}请(?:浏览|访问|登[录陆]|到).{0,40}(?:阅读|\.com|\.net|\.org|\.cc).{0,40}",
    r".{0,20}(?:最新章节|全文阅读|无弹窗|最快更新|更新最快|首发网?站?|手打).{0,8}(?:[:：]|尽在|请到|就在|https?|www).{0,60}",
    r"(?:https?://)?(?:www\.|m\.)[\w.-]+\.(?:com|cn|net|org|cc|info)[/\w.?=&-]*",
    r".{0,12}(?:TXT|txt)(?:全集|电子书|小说)?下载.{0,40}",
    r"(?:跪?求|喜欢.{0,10}请).{0,6}(?:推荐票?|收藏|月票|订阅|红票|打赏|评论).{0,24}",
    # the frame of a page
    r"(?:(?:上|下)一(?:章|页|节|回)|返回(?:目录|书页|首页|列表)|章节(?:目录|列表|报错)|加入书[签架]|投推荐票|推荐本书|我的书架|[|｜→←<>\s\-·])+",
    r"[（(【]?\s*(?:本章|本节|本回|全书|全文)?\s*(?:完|未完待续|未完，?待续)\s*[.。…]*\s*[)）】]?",
    r"[-—–]\s*\d{1,4}\s*[-—–]",
    r"第\s*\d{1,4}\s*页(?:\s*[/，,共].{0,12})?",
)  # fmt: skip

WEB = (
    # navigation
    r"您?(?:现在|当前|所在|所处)?的?(?:当前|所在)?位置[:：].{0,80}",
    r"(?:首页|主页)\s*(?:[>»›/|｜-]\s*\S{1,20}\s*){1,6}",
    r"(?:上|下)一(?:篇|页|条|个)(?:文章|新闻)?(?:[:：].{0,60})?",
    r"(?:相关|热门|推荐|延伸|更多|最新)(?:阅读|文章|新闻|推荐|链接|资讯|搜索|内容|评论|专题)[:：>》]{0,2}",
    r"(?:返回|回到)(?:顶部|首页|搜狐|列表|栏目|上一页)(?:，?查看更多)?",
    r"(?:点击|扫码|长按|扫描).{0,16}(?:查看|阅读|关注|下载|二维码|进入|更多|识别).{0,24}",
    r".{0,4}(?:关闭窗口|打印本页|打印|字号|大 中 小|我要评论|发表评论|加入收藏|设为首页|网站地图|联系我们|关于我们|友情链接|广告服务|免责声明|法律声明|隐私政策|[|｜\s【】\[\]])+",
    # who and when
    r"(?:责任编辑|责编|编辑|作者|来源|稿源|信息来源|文章来源|发布时间|发布日期|发表时间|更新时间|时间|日期|浏览次数|浏览|阅读量|阅读|点击数|点击|人气|字号|分享到|分享|标签|关键词|评论)[:：]\s*[^。！？]{0,40}",
    r"(?:本文)?(?:转载|来源|摘自)(?:请注明|自|于)[:：]?.{0,50}",
    r".{0,20}(?:版权(?:归.{0,12}所有|所有)|侵权.{0,8}(?:删除|联系|必究)|转载请(?:注明|联系)|未经.{0,12}(?:授权|许可|允许).{0,20}(?:转载|使用|复制|镜像)).{0,80}",
    r"(?:copyright|版权所有|©|ⓒ).{0,100}",
    r".{0,40}(?:ICP备|ICP证|公网安备|许可证|备案号)\S{0,40}.{0,60}",
    r".{0,30}(?:举报电话|举报邮箱|投稿邮箱|投稿微信|客服电话|客服热线|服务热线|广告热线|合作微信)[:：].{0,60}",
    r".{0,12}(?:您的浏览器|你的浏览器|wifi下观看|流量观看|该楼层疑似违规).{0,50}",
)  # fmt: skip

SETS = {"novel": NOVEL, "web": WEB}
_TAIL = re.compile(r"(?:返回搜狐，查看更多\s*)?责任编辑[:：]\s*\S{0,12}\s*$|返回搜狐，查看更多\s*$")
"""What follows the last sentence on its own line."""
_TAIL_CHARACTERS = 60

_MOST = 160
"""A line with more characters is text."""
_HEADING = re.compile(CHAPTER_PATTERN)
_CONTENTS = 5
"""So many headings with nothing between them are a table of contents."""


def compile_sets(names: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern for the lines of these sets, or None for no set."""
    patterns = [pattern for name in names for pattern in SETS[name]]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE) if patterns else None


def drop_lines(text: str, pattern: re.Pattern[str]) -> tuple[str, list[str]]:
    """`text` without the lines that `pattern` names, and these lines."""
    kept, taken = [], []
    for line in text.split("\n"):
        bare = line.strip()
        if bare and len(bare) <= _MOST and pattern.fullmatch(bare):
            taken.append(bare)
        else:
            kept.append(line)
    return ("\n".join(kept), taken) if taken else (text, taken)


def drop_tail(text: str) -> tuple[str, list[str]]:
    """`text` without a web page's closing words behind its last sentence."""
    taken = []
    while match := _TAIL.search(text, max(0, len(text) - _TAIL_CHARACTERS)):
        taken.append(match.group().strip())
        text = text[: match.start()].rstrip()
    return text, taken


def drop_contents(text: str) -> tuple[str, list[str]]:
    """`text` without tables of contents: runs of chapter headings with no text between them.

    A heading that stands at the end of such a run and in it before begins the text, and stays.
    """
    lines, taken = text.split("\n"), []
    run: list[int] = []
    drop: set[int] = set()

    def close() -> None:
        if len(run) >= _CONTENTS:
            names = [lines[number].strip() for number in run]
            drop.update(run[:-1] if names[-1] in names[:-1] else run)
        run.clear()

    for number, line in enumerate(lines):
        if _HEADING.match(line):
            run.append(number)
        elif line.strip():
            close()
    close()
    if not drop:
        return text, taken
    taken = [lines[number].strip() for number in sorted(drop)]
    return "\n".join(line for number, line in enumerate(lines) if number not in drop), taken
