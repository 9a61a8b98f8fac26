import logging

from shop import app

handler = logging.StreamHandler()
