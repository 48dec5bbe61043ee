"""The hanzi that nearly any Chinese text is made of: what tells a right reading of bytes from a wrong one.

The 500 most frequent characters of modern prose, news, web pages and the classical novels, counted by us (together
72 of 100 characters there), and the traditional forms of those. A wrong encoding gives hanzi too, but any hanzi.
"""

from __future__ import annotations

import re

_SIMPLIFIED = (
    "的一了不人是有在来大中个我上这道为和出时之以下说国到要年他也家生可子去日行业会得作发自用学你公里们能地后将于就工小多成分见方进等好过如都面对只着与理心军事前那高天曰主全三开动同此马经新而起市二本明看其"
    "便关又产定实回长两合知法内月现力机安入者水无还部品当文问头正体所相儿兵十点么电重保今区外数何因化手间山教然太通门平管建城设路民报金老提场从没已务应展名度加意及计先性江些司最处情量并使宝信员位车打第资张"
    "制身各更众次做政把王玉被口目听种接至西物系东话程四解书想比利交万活但期南表果原领取商州德立师五样题特技常风服向气却很走引科别元色统李笑式放件美术或持再基酒收请结操才院贾备己且网言强质受住北单社必代带战"
    "传标防直宋房海规叫少线给求任什几未专据命感林导边项企流由令指级告记真云调投总参杀百死组办联非格型校让女光声号布士容台造省花若游官清达支议华世深价往料近类息连白义包望县吃周客考费每步队济功集完运条认查育"
    "村即府夫证视广难营需观推火早亲权共施研干整户姐源武该节局变供故园具快选形改精吾责治神修准图首创空母案示维思刘器送影注医环阳随乐消喜复增决曹农转青病反字京红效装石界球团食许率怎黄易优汉况乃孔坐哥片论限尽"
)
_TRADITIONAL = (
    "來個這爲時說國業會發學裏們後將於見進過對與軍開動馬經關產實長兩內現機無還當問頭體兒點麼電區數間門設報場從沒務應計處並寶員車資張衆聽種東話書萬領師樣題風氣卻別統術請結賈備網強質單帶戰傳標規線給幾專據導邊"
    "項級記雲調總參殺組辦聯讓聲號臺遊達議華價類連義縣喫費隊濟運條認證視廣難營觀親權幹戶該節變園選責準圖創維劉醫環陽隨樂復決農轉紅裝團許黃優漢況論盡麽鬥餘範鍾製複颱纔隻佔係嗎妳啦呢她祂喔囉"
)

COMMON_HANZI = frozenset(_SIMPLIFIED + _TRADITIONAL)

_COMMON = re.compile(
    f"[{''.join(sorted(COMMON_HANZI))}\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u00b7\u3000-\u3011\uff01-\uff5e]+"
)
_ASCII = re.compile("[\x00-\x7f]+")


def common_share(text: str) -> tuple[float, int]:
    """How much of the text beyond ASCII is common hanzi and Chinese punctuation, and how many such characters it has.

    Prose comes to 0.4 and more from a line on; bytes read in a wrong encoding stay below 0.2. Measured on 16 and more
    characters of novels, Tang poems, web pages and stories, simplified and traditional.
    """
    beyond = _ASCII.sub("", text)
    return 1 - len(_COMMON.sub("", beyond)) / max(1, len(beyond)), len(beyond)
