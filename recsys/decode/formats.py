"""Which of FFmpeg's containers are opened at all.

Left out are playlists and manifests, which would make FFmpeg open other files and addresses (hls,
concat, dash, image2, sdp, rtsp, imf, lavfi, …), devices, text (FFmpeg "plays" text files as
terminal sessions) and subtitles.
"""

from __future__ import annotations

_VIDEO = """
3dostr 4xm amv anm apng apv asf asf_o av1 avi avr avs avs2 avs3 bethsoftvid bfi bink bmv c93
cavsvideo cdg cdxl cine daud derf dfa dhav dirac dnxhd dsicin dv dxa ea evc filmstrip film_cpk flic
flv frm fsb gdv gif gxf h261 h263 h264 hevc hnm hxvs idcin iff ifv ingenient ipmovie ipu iss iv8 ivf
ivr jpegxl_anim jv kux live_flv lmlm4 luodat lvf lxf m4v matroska webm mgsts mjpeg mjpeg_2000 mlv mm
mods moflex mov mp4 m4a 3gp 3g2 mj2 mpeg mpegts mpegtsraw mpegvideo mpjpeg msnwctcp mtv musx mv mvi
mxf mxg nc nsv nut nuv obu ogg paf pdv pmp psxstr pva r3d redspark rl2 rm roq rpl sdr2 sdx ser sga
siff simbiosis_imx smjpeg smk smush svs swf thp tiertexseq tmv txd ty usm v210 v210x vc1 vc1test
vidc vividas vivo vmd vvc wc3movie wsvqa wtv wv xmv yop yuv4mpegpipe
""".split()

_STILL = """
alias_pix bmp_pipe brender_pix cri_pipe dds_pipe dpx_pipe exr_pipe fits gem_pipe gif_pipe hdr_pipe
ico j2k_pipe jpeg_pipe jpegls_pipe jpegxl_pipe jpegxs_pipe msp pam_pipe pbm_pipe pcx_pipe pfm_pipe
pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe
qdraw_pipe qoi_pipe sgi_pipe sunrast_pipe tiff_pipe vbn_pipe webp_pipe xbm_pipe xpm_pipe xwd_pipe
""".split()

# Opened for the pictures that lie in them, and to tell sound from what is no medium at all.
_SOUND = """
aac ac3 aiff amr ape au caf dsf dts dtshd eac3 flac loas mlp mp3 mpc mpc8 oma shn spdif tak truehd
tta voc w64 wav
""".split()

STILL_BY_NAME = "image2pipe"
"""Reads a picture as what its name says; unlike image2 it opens no file of that name."""

NAMED_STILLS = (".tga", ".pam", ".xface")
"""Endings of pictures whose bytes do not tell what they are."""

STILL_FORMATS = frozenset([*_STILL, STILL_BY_NAME])
"""Containers of one picture."""

FORMAT_WHITELIST = ",".join([*_VIDEO, *_STILL, STILL_BY_NAME, *_SOUND])
"""FFmpeg's `format_whitelist`."""
