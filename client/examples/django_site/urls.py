"""Where the views are."""

from django.urls import path

from django_site.views import Media, index

urlpatterns = [path("media", index), path("drf/media", Media.as_view())]
