from django.db import transaction
from django.http import HttpResponseBadRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from shop.tasks import confirm


@csrf_exempt
@transaction.atomic
def take(request):
    order = Order.objects.create(item=request.POST["item"])
    job = confirm.delay(order.pk)
    if order.item == "nothing":
        transaction.set_rollback(True)  # neither the order nor its job is there
        return HttpResponseBadRequest()
    return JsonResponse({"order": order.pk, "job": job.id}, status=201)
