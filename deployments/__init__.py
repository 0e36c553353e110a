"""The speech service: Ray Serve deployments around the library `qwen_tts`.

At this level are the composition of the application (app.py), its settings, the Ingress deployment and the errors that
every room uses. Everything else has a room, and the rooms import each other in one direction only: errors, text, audio
<- wire <- settings <- replicas | access <- voices <- speech <- http <- protocols <- ingress <- app <- commands. Models
and audio codecs of Qwen3-TTS belong in `qwen_tts`.
"""
