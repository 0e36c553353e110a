"""The texts of the load tests: sentences written for these tests, in the model's ten languages.

The lengths are typical of assistants: of four texts, one is a short reply, two or three are a sentence, and the rest
are two or three sentences. Chinese, Japanese and Korean texts mean as much in fewer characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The shares of short replies, single sentences and passages among drawn texts.
SHARES = (0.25, 0.6, 0.15)

_Lengths = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Text:
    language: str
    words: str


_TEXTS: dict[str, _Lengths] = {
    "english": (
        ("Yes, of course.", "One moment, please.", "It is half past four."),
        (
            "The next train to the coast leaves from platform nine in twelve minutes.",
            "I have moved your appointment to Thursday morning and told everyone.",
            "If the rain stops before noon, we could still walk around the lake.",
            "Your parcel was handed to a neighbour who lives on the second floor.",
        ),
        (
            "The bakery on the corner opens at six. They sell out of rye bread by eight, so it is worth getting up "
            "early.",
            "Turn left after the bridge and follow the river for a mile. You will see a white house with green "
            "shutters. Park behind it.",
        ),
    ),
    "german": (
        ("Ja, sehr gern.", "Einen Augenblick, bitte.", "Es ist gleich halb fünf."),
        (
            "Der nächste Zug ans Meer fährt in zwölf Minuten von Gleis neun ab.",
            "Ich habe Ihren Termin auf Donnerstagvormittag verlegt und allen Bescheid gesagt.",
            "Wenn der Regen bis Mittag aufhört, können wir noch um den See laufen.",
            "Ihr Paket liegt bei einer Nachbarin, die im zweiten Stock wohnt.",
        ),
        (
            "Die Bäckerei an der Ecke öffnet um sechs. Das Roggenbrot ist meist um acht ausverkauft, also lohnt es "
            "sich, früh aufzustehen.",
        ),
    ),
    "french": (
        ("Oui, bien sûr.", "Un instant, s'il vous plaît.", "Il est quatre heures et demie."),
        (
            "Le prochain train pour la côte part du quai numéro neuf dans douze minutes.",
            "J'ai déplacé votre rendez-vous à jeudi matin et prévenu tout le monde.",
            "S'il cesse de pleuvoir avant midi, nous pourrons encore faire le tour du lac.",
            "Votre colis a été remis à une voisine qui habite au deuxième étage.",
        ),
        (
            "La boulangerie du coin ouvre à six heures. Le pain de seigle est épuisé vers huit heures, alors mieux "
            "vaut se lever tôt.",
        ),
    ),
    "spanish": (
        ("Sí, por supuesto.", "Un momento, por favor.", "Son las cuatro y media."),
        (
            "El próximo tren a la costa sale del andén nueve dentro de doce minutos.",
            "He pasado su cita al jueves por la mañana y he avisado a todos.",
            "Si deja de llover antes del mediodía, aún podremos dar la vuelta al lago.",
            "Su paquete lo recogió una vecina que vive en el segundo piso.",
        ),
        (
            "La panadería de la esquina abre a las seis. El pan de centeno se agota hacia las ocho, así que vale la "
            "pena madrugar.",
        ),
    ),
    "italian": (
        ("Sì, certamente.", "Un attimo, per favore.", "Sono le quattro e mezza."),
        (
            "Il prossimo treno per il mare parte dal binario nove fra dodici minuti.",
            "Ho spostato il suo appuntamento a giovedì mattina e ho avvisato tutti.",
            "Se smette di piovere prima di mezzogiorno, possiamo ancora fare il giro del lago.",
            "Il suo pacco è stato lasciato a una vicina che abita al secondo piano.",
        ),
        (
            "Il panificio all'angolo apre alle sei. Il pane di segale finisce verso le otto, perciò conviene "
            "alzarsi presto.",
        ),
    ),
    "portuguese": (
        ("Sim, com certeza.", "Um momento, por favor.", "São quatro e meia."),
        (
            "O próximo comboio para a costa parte da linha nove dentro de doze minutos.",
            "Mudei a sua consulta para quinta-feira de manhã e avisei toda a gente.",
            "Se parar de chover antes do meio-dia, ainda podemos dar a volta ao lago.",
            "A sua encomenda ficou com uma vizinha que mora no segundo andar.",
        ),
        ("A padaria da esquina abre às seis. O pão de centeio esgota por volta das oito, por isso convém ir cedo.",),
    ),
    "russian": (
        ("Да, конечно.", "Одну минуту, пожалуйста.", "Сейчас половина пятого."),
        (
            "Следующий поезд к морю отходит с девятого пути через двенадцать минут.",
            "Я перенёс вашу встречу на утро четверга и всех предупредил.",
            "Если дождь кончится до полудня, мы ещё успеем обойти озеро.",
            "Вашу посылку оставили у соседки, которая живёт на втором этаже.",
        ),
        ("Булочная на углу открывается в шесть. Ржаной хлеб кончается к восьми, так что стоит встать пораньше.",),
    ),
    "chinese": (
        ("好的，没问题。", "请稍等一下。", "现在四点半。"),
        (
            "下一班开往海边的火车十二分钟后从九号站台出发。",
            "我已经把您的预约改到星期四上午，也通知了大家。",
            "如果中午以前雨停了，我们还可以绕着湖走一圈。",
            "您的包裹交给了住在二楼的邻居。",
        ),
        ("街角的面包店六点开门。黑麦面包八点左右就卖完了，所以最好早点起床。",),
    ),
    "japanese": (
        ("はい、もちろんです。", "少々お待ちください。", "今、四時半です。"),
        (
            "海へ行く次の電車は、十二分後に九番線から出ます。",
            "ご予約を木曜日の午前に変更し、皆さんにお知らせしました。",
            "昼までに雨が止んだら、まだ湖を一周できますよ。",
            "お荷物は、二階に住んでいるお隣の方に預けてあります。",
        ),
        ("角のパン屋は六時に開きます。ライ麦パンは八時ごろには売り切れるので、早起きする価値があります。",),
    ),
    "korean": (
        ("네, 물론이죠.", "잠시만 기다려 주세요.", "지금 네 시 반입니다."),
        (
            "바다로 가는 다음 기차는 십이 분 후에 구 번 승강장에서 출발합니다.",
            "예약을 목요일 오전으로 옮기고 모두에게 알려 드렸습니다.",
            "정오 전에 비가 그치면 아직 호수를 한 바퀴 돌 수 있어요.",
            "택배는 이 층에 사는 이웃에게 맡겨 두었습니다.",
        ),
        ("모퉁이 빵집은 여섯 시에 문을 열어요. 호밀빵은 여덟 시쯤 다 팔리니 일찍 일어나는 게 좋아요.",),
    ),
}

assert all(len(lengths) == len(SHARES) for lengths in _TEXTS.values()), "a length of texts has no share, or the reverse"
LANGUAGES = tuple(_TEXTS)


def draw(rng: np.random.Generator, languages: Sequence[str]) -> Text:
    """Draw one text. All `languages` are equally likely."""
    language = languages[int(rng.integers(len(languages)))]
    lengths = _TEXTS[language]
    of_length = lengths[rng.choice(len(lengths), p=SHARES)]
    return Text(language, of_length[rng.integers(len(of_length))])


def draw_long(rng: np.random.Generator, languages: Sequence[str], characters: int) -> Text:
    """Draw a text of at least `characters` characters: the sentences and passages of one language, in random order."""
    language = languages[int(rng.integers(len(languages)))]
    _, sentences, passages = _TEXTS[language]
    known = [*sentences, *passages]
    words = ""
    while len(words) < characters:
        words += " ".join(known[index] for index in rng.permutation(len(known))) + " "
    return Text(language, words.strip())
