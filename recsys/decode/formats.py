"""Which of FFmpeg's containers are opened at all.

Left out are playlists and manifests, which would make FFmpeg open other files and addresses (hls,
concat, dash, image2, sdp, rtsp, imf, lavfi, …), devices, text (FFmpeg "plays" text files as
terminal sessions), subtitles and sound.
"""

from __future__ import annotations

_VIDEO = """
3dostr 4xm amv anm apng asf asf_o av1 avi avr avs avs2 avs3 bethsoftvid bfi bink bmv c93 cavsvideo
cdxl cine daud derf dfa dhav dirac dnxhd dv dxa ea evc filmstrip film_cpk flic flv frm fsb gdv gif
gxf h261 h263 h264 hevc hnm idcin iff ifv ingenient ipmovie ipu iss iv8 ivf ivr jpegxl_anim jv kux
live_flv lmlm4 luodat lvf lxf m4v matroska webm mgsts mjpeg mjpeg_2000 mlv mm mods moflex mov mp4
m4a 3gp 3g2 mj2 mpeg mpegts mpegtsraw mpegvideo mpjpeg msnwctcp mtv musx mv mvi mxf mxg nc nsv nut
nuv obu ogg paf pdv pmp psxstr pva r3d redspark rl2 rm roq rpl sdr2 sdx ser sga siff simbiosis_imx
smjpeg smk smush svs swf thp tiertexseq tmv txd ty v210 v210x vc1 vc1test vidc vividas
vivo vmd vvc wc3movie wsvqa wtv wv xmv yop yuv4mpegpipe
""".split()

_STILL = """
bmp_pipe cri_pipe dds_pipe dpx_pipe exr_pipe gem_pipe hdr_pipe ico j2k_pipe jpeg_pipe jpegls_pipe
jpegxl_pipe jpegxs_pipe pam_pipe pbm_pipe pcx_pipe pfm_pipe pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe
photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe sgi_pipe sunrast_pipe
tiff_pipe vbn_pipe webp_pipe xbm_pipe xpm_pipe xwd_pipe
""".split()

_SOUND_WITH_COVER = "mp3 flac aiff wav w64 ape mpc mpc8 tta wma dsf oma tak caf".split()

STILL_FORMATS = frozenset(_STILL)
"""Containers of one picture."""

FORMAT_WHITELIST = ",".join([*_VIDEO, *_STILL, *_SOUND_WITH_COVER])
"""FFmpeg's `format_whitelist`."""
