"""A view of Django, and one of Django REST Framework."""

from django.http import JsonResponse
from rest_framework.response import Response
from rest_framework.views import APIView

from userapi_client.django import required
from userapi_client.drf import requires


@required("media:read")
def index(request):
    return JsonResponse({"for": request.principal.id})


class Media(APIView):
    permission_classes = [requires("media:read")]

    def get(self, request):
        return Response({"for": request.user.id, "key": request.auth.key_id})
